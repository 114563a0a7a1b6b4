// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/listen_address.h"

namespace looptrace {
namespace {

TEST(ListenAddress, Forms) {
  const std::pair<const char*, const char*> right[] = {
      {"127.0.0.1:9464", "127.0.0.1:9464"}, {"9464", "127.0.0.1:9464"},   {"localhost:0", "127.0.0.1:0"},
      {"0.0.0.0:65535", "0.0.0.0:65535"},   {"[::1]:9464", "[::1]:9464"}, {"[::]:80", "[::]:80"},
  };
  for (const auto& [text, meant] : right) {
    const auto address = parse_listen_address(text);
    ASSERT_TRUE(address) << text << ": " << address.error().message();
    EXPECT_EQ(address->text(), meant);
  }
}

TEST(ListenAddress, WrongOnesAreUsageErrorsWithAnExample) {
  for (const char* text : {"", ":", ":9464", "::1:9464", "[::1]", "[]:1", "example.com:80", "127.0.0.1:65536",
                           "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:80 ", "1.2.3:80"}) {
    const auto address = parse_listen_address(text);
    ASSERT_FALSE(address) << text;
    EXPECT_EQ(address.error().fault, Fault::usage) << text;
    EXPECT_NE(address.error().what.find("127.0.0.1:9464"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace looptrace
