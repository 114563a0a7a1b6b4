// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "base/files.h"

namespace looptrace {
namespace {

TEST(AtMost, OnlyALongerTextIsCut) {
  EXPECT_EQ(at_most("", 3), "");
  EXPECT_EQ(at_most("abc", 3), "abc");
  EXPECT_EQ(at_most("abcd", 3), "abc…");
  EXPECT_EQ(at_most("a", 0), "…");
}

TEST(AtMost, NoCharacterIsHalved) {
  const std::string text = "aß日🐍";  // 1, 2, 3 and 4 bytes
  const std::string whole[] = {"", "a", "a", "aß", "aß", "aß", "aß日", "aß日", "aß日", "aß日"};
  for (size_t limit = 0; limit < text.size(); ++limit)
    EXPECT_EQ(at_most(text, limit), whole[limit] + "…") << limit;
}

TEST(AtMost, BytesThatAreNoTextStay) {
  EXPECT_EQ(at_most("\x80\x80\x80\x80\x80", 4), "\x80\x80\x80\x80…");
  EXPECT_EQ(at_most("a\xff\xff", 2), "a…") << "like the first of a character";
}

}  // namespace
}  // namespace looptrace
