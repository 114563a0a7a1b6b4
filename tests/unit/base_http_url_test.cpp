// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/http_url.h"

namespace looptrace {
namespace {

TEST(HttpUrl, Parts) {
  struct Row {
    const char *text, *host, *path;
    bool tls;
  };
  const Row rows[] = {{"http://127.0.0.1:4318", "127.0.0.1", "", false},
                      {"https://otel.example.com/", "otel.example.com", "/", true},
                      {"HTTP://[::1]:4318/v1/logs?x=1", "::1", "/v1/logs?x=1", false},
                      {"https://a_b-c.d:1", "a_b-c.d", "", true}};
  for (const Row& row : rows) {
    const auto url = parse_http_url(row.text);
    ASSERT_TRUE(url) << row.text << ": " << url.error().message();
    EXPECT_EQ(url->text, row.text);
    EXPECT_EQ(url->host, row.host);
    EXPECT_EQ(url->path, row.path);
    EXPECT_EQ(url->tls, row.tls);
  }
  EXPECT_TRUE(parse_http_url("http://[::1]:4318")->is_loopback());
  EXPECT_FALSE(parse_http_url("http://1270.example")->is_loopback());
}

TEST(HttpUrl, WrongOnesAreUsageErrors) {
  for (const char* text :
       {"", "127.0.0.1:4318", "ftp://a", "http://", "http://:80", "http://a:0", "http://a:65536",
        "http://a:", "http://a:b", "http://a b", "http://a/\n", "http://a#f", "http://[::1", "http://[x]",
        "http://[::1]80", "http://a?x", "http://\xc3\xa9", "http:///v1/logs"}) {
    const auto url = parse_http_url(text);
    ASSERT_FALSE(url) << text;
    EXPECT_EQ(url.error().fault, Fault::usage) << text;
  }
}

TEST(HttpUrl, CredentialsAreRefusedAndNotRepeated) {
  const auto url = parse_http_url("http://user:hunter2@collector:4318");
  ASSERT_FALSE(url);
  EXPECT_EQ(url.error().what.find("hunter2"), std::string::npos);
  EXPECT_NE(url.error().what.find("OTEL_EXPORTER_OTLP_HEADERS"), std::string::npos);
}

}  // namespace
}  // namespace looptrace
