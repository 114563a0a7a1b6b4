// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "runtimes/cpython/line_table.h"

namespace looptrace::cpython {
namespace {

using Bytes = std::vector<uint8_t>;

TEST(LnoTab, AddsDeltasUpToTheInstruction) {
  const Bytes table = {0, 1, 8, 2, 4, 0xff, 255, 0, 45, 4};
  EXPECT_EQ(line_by_lnotab(table, 10, -1), 10);
  EXPECT_EQ(line_by_lnotab(table, 10, 0), 11);
  EXPECT_EQ(line_by_lnotab(table, 10, 6), 11);
  EXPECT_EQ(line_by_lnotab(table, 10, 8), 13);
  EXPECT_EQ(line_by_lnotab(table, 10, 12), 12) << "deltas are signed";
  EXPECT_EQ(line_by_lnotab(table, 10, 311), 12);
  EXPECT_EQ(line_by_lnotab(table, 10, 312), 16) << "a long step takes two pairs";
  EXPECT_EQ(line_by_lnotab(table, 10, 1 << 20), 16) << "the last line has no end";
  EXPECT_EQ(line_by_lnotab({}, 7, 100), 7);
}

TEST(Ranges, EachPairCoversItsLength) {
  const Bytes table = {2, 0, 6, 1, 0, 127, 0, 127, 4, 46, 2, 0x80, 8, 0xfe};
  EXPECT_EQ(line_by_ranges(table, 5, -2), 5);
  EXPECT_EQ(line_by_ranges(table, 5, 0), 5);
  EXPECT_EQ(line_by_ranges(table, 5, 2), 6);
  EXPECT_EQ(line_by_ranges(table, 5, 7), 6);
  EXPECT_EQ(line_by_ranges(table, 5, 8), 306) << "pairs of no length only move the line";
  EXPECT_EQ(line_by_ranges(table, 5, 12), std::nullopt) << "-128: no line";
  EXPECT_EQ(line_by_ranges(table, 5, 14), 304);
  EXPECT_EQ(line_by_ranges(table, 5, 22), std::nullopt) << "past the end";
}

constexpr uint8_t head(unsigned kind, unsigned units) {
  return static_cast<uint8_t>(0x80 | kind << 3 | (units - 1));
}

TEST(Locations, EveryKindOfEntry) {
  const Bytes table = {
      head(15, 1),                                          // no line
      head(14, 2), 2 << 1,     1,  3, 9,                    // long: +2, end +1, columns
      head(3, 1),  0x21,                                    // same line, columns
      head(11, 8), 4,          8,                           // +1
      head(12, 1), 4,          8,                           // +2
      head(13, 1), 3 << 1 | 1,                              // no columns: -3
      head(14, 1), 0x40 | 40,  15, 0, 0x7f, 0x3f, 0x41, 1,  // (40 | 15 << 6) >> 1 = 500; long columns
      head(10, 1), 0,          1,                           // same line
  };
  EXPECT_EQ(line_by_locations(table, 100, -2), 100);
  EXPECT_EQ(line_by_locations(table, 100, -4), std::nullopt) << "of a copy of the code that lies before it";
  EXPECT_EQ(line_by_locations(table, 100, 0), std::nullopt);
  EXPECT_EQ(line_by_locations(table, 100, 2), 102);
  EXPECT_EQ(line_by_locations(table, 100, 5), 102);
  EXPECT_EQ(line_by_locations(table, 100, 6), 102);
  EXPECT_EQ(line_by_locations(table, 100, 8), 103);
  EXPECT_EQ(line_by_locations(table, 100, 23), 103);
  EXPECT_EQ(line_by_locations(table, 100, 24), 105);
  EXPECT_EQ(line_by_locations(table, 100, 26), 102);
  EXPECT_EQ(line_by_locations(table, 100, 28), 602);
  EXPECT_EQ(line_by_locations(table, 100, 30), 602);
  EXPECT_EQ(line_by_locations(table, 100, 32), std::nullopt) << "past the end";
}

TEST(Locations, ATableCutShortIsNotReadPastItsEnd) {
  const Bytes table = {head(14, 2), 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f};
  for (size_t n = 0; n <= table.size(); ++n) {
    line_by_locations({table.data(), n}, 1, 0);
    line_by_locations({table.data(), n}, 1, 100);
  }
  EXPECT_EQ(line_by_locations({}, 1, 0), std::nullopt);
}

TEST(LineTables, AnyBytesAreAccepted) {
  std::mt19937 random(23);
  for (int i = 0; i < 20000; ++i) {
    Bytes table(random() % 64);
    for (uint8_t& b : table) b = static_cast<uint8_t>(random());
    const int first = static_cast<int>(random());
    const int64_t offset = static_cast<int64_t>(random()) - (1 << 20);
    for (const auto line : {line_by_lnotab(table, first, offset), line_by_ranges(table, 1, offset % 512),
                            line_by_locations(table, 1, offset % 512)}) {
      EXPECT_TRUE(offset < 0 || line.value_or(0) >= 0);
    }
  }
}

}  // namespace
}  // namespace looptrace::cpython
