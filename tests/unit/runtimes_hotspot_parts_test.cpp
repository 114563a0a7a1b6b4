// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "runtimes/hotspot/code_cache.h"
#include "runtimes/hotspot/method_names.h"
#include "stacks/eh_frame.h"

namespace looptrace::hotspot {
namespace {

constexpr uint64_t kLow = 0x7f0000000000;

CodeBlob blob(const std::string& name, uint64_t start, uint64_t size, int frame_words, int frame_complete) {
  return {kLow + start, kLow + start + size, frame_words, frame_complete, name, 0, 0, 0};
}

// What `rows` say of an offset: the kind, and the words of the frame.
std::pair<int, int> at(const std::vector<lt_row>& rows, uint64_t pc) {
  const lt_row row = find_row(rows, pc);
  return {row.kind, row.cfa};
}

TEST(HotspotRows, ACompiledMethodHasItsFrameFromThePrologueToTheEpilogue) {
  std::vector<uint8_t> code(64, 0x90);
  const std::vector<uint8_t> epilogue = {0x48, 0x83, 0xc4, 0x20, 0x5d, 0x49, 0x3b, 0xa7, 1, 2, 3, 4, 0xc3};
  std::copy(epilogue.begin(), epilogue.end(), code.begin() + 40);
  const auto rows = rows_of(blob("nmethod", 0x100, 64, 6, 12), kLow, code);
  EXPECT_EQ(at(rows, 0x100), std::pair(int{LT_ROW_RSP}, 1));
  EXPECT_EQ(at(rows, 0x10b), std::pair(int{LT_ROW_RSP}, 1));
  EXPECT_EQ(at(rows, 0x10c), std::pair(int{LT_ROW_RSP}, 6));
  EXPECT_EQ(find_row(rows, 0x10c).bp, -2);
  EXPECT_EQ(at(rows, 0x100 + 43), std::pair(int{LT_ROW_RSP}, 6));
  EXPECT_EQ(at(rows, 0x100 + 44), std::pair(int{LT_ROW_RSP}, 2)) << "rbp is still to be popped";
  EXPECT_EQ(at(rows, 0x100 + 45), std::pair(int{LT_ROW_RSP}, 1));
  EXPECT_EQ(find_row(rows, 0x100 + 45).bp, 0);
  EXPECT_EQ(at(rows, 0x100 + 52), std::pair(int{LT_ROW_RSP}, 1)) << "ret";
  EXPECT_EQ(at(rows, 0x100 + 53), std::pair(int{LT_ROW_RSP}, 6));
  EXPECT_EQ(at(rows, 0x100 + 64).first, LT_ROW_UNSUPPORTED) << "nothing is known of what is compiled later";
}

TEST(HotspotRows, Prologues) {
  const std::vector<uint8_t> pushes = {0x89, 0x84, 0x24, 0,    0xc0, 0xfe, 0xff,
                                       0x55, 0x48, 0x83, 0xec, 0x20, 0x90, 0x90};
  auto rows = rows_of(blob("nmethod", 0, pushes.size(), 6, 12), kLow, pushes);
  EXPECT_EQ(at(rows, 7), std::pair(int{LT_ROW_RSP}, 1));
  EXPECT_EQ(at(rows, 8), std::pair(int{LT_ROW_RSP}, 2));
  EXPECT_EQ(find_row(rows, 8).bp, -2);
  EXPECT_EQ(at(rows, 12), std::pair(int{LT_ROW_RSP}, 6));
  std::vector<uint8_t> with_barrier = pushes;
  with_barrier.insert(with_barrier.begin() + 12,
                      {0x41, 0x81, 0x7f, 0x20, 1, 0, 0, 0, 0x0f, 0x85, 0, 1, 0, 0});
  rows = rows_of(blob("nmethod", 0, with_barrier.size(), 6, 26), kLow, with_barrier);
  EXPECT_EQ(at(rows, 8), std::pair(int{LT_ROW_RSP}, 2));
  for (const size_t pc : {12, 20, 26}) EXPECT_EQ(at(rows, pc), std::pair(int{LT_ROW_RSP}, 6)) << pc;
  const std::vector<uint8_t> stores = {0x48, 0x81, 0xec, 0x18, 0,    0,    0,
                                       0x48, 0x89, 0x6c, 0x24, 0x10, 0x90, 0x90};
  rows = rows_of(blob("nmethod", 0, stores.size(), 4, 12), kLow, stores);
  EXPECT_EQ(at(rows, 6), std::pair(int{LT_ROW_RSP}, 1));
  EXPECT_EQ(at(rows, 7), std::pair(int{LT_ROW_RSP}, 4));
  EXPECT_EQ(find_row(rows, 7).bp, 0) << "rbp is the caller's yet";
  EXPECT_EQ(find_row(rows, 12).bp, -2);
}

TEST(HotspotRows, StubsHaveFramePointersButForTheirEnds) {
  const std::vector<uint8_t> code = {0x55, 0x48, 0x8b, 0xec, 0x90, 0xc5, 0xf8, 0x77, 0xc9, 0xc3, 0x90,
                                     0x55, 0x48, 0x8b, 0xec, 0x90, 0xc9, 0xc5, 0xf8, 0x77, 0xc3, 0x90};
  const auto rows = rows_of(blob("StubRoutines (2)", 0, code.size(), 0, 0), kLow, code);
  for (const size_t pc : {0, 9, 11, 17, 20}) EXPECT_EQ(at(rows, pc), std::pair(int{LT_ROW_RSP}, 1)) << pc;
  for (const size_t pc : {1, 12}) EXPECT_EQ(at(rows, pc), std::pair(int{LT_ROW_RSP}, 2)) << pc;
  for (const size_t pc : {4, 8, 10, 15, 16, 21}) EXPECT_EQ(at(rows, pc).first, LT_ROW_GAP) << pc;
}

// The code of a String.compareTo() that C2 compiled in place.
TEST(HotspotRows, AComparisonOfStringsHasAWordMore) {
  std::vector<uint8_t> code = {0x90, 0x90, 0x8b, 0xc1, 0x2b, 0xca, 0x51, 0x0f, 0x4e, 0xd0, 0x85, 0xd2,
                               0x2b, 0xc1, 0x75, 0x08, 0x58, 0xeb, 0x01, 0x59, 0x85, 0xc0, 0x90, 0x90};
  const auto words = [&](size_t pc) {
    return at(rows_of(blob("nmethod", 0, code.size(), 6, 2), kLow, code), pc).second;
  };
  EXPECT_EQ(words(6), 6) << "push";
  EXPECT_EQ(words(7), 7);
  EXPECT_EQ(words(16), 7) << "pop rax";
  EXPECT_EQ(words(17), 6) << "jmp";
  EXPECT_EQ(words(19), 7) << "pop rcx";
  EXPECT_EQ(words(20), 6);
  code[19] = 0x90;  // jumps to something else
  EXPECT_EQ(words(7), 6);
  for (size_t n = 0; n <= code.size(); ++n) {
    code.resize(code.size() - n % 2);
    (void)words(7);
  }
}

// Begins of comparisons that have no end.
TEST(HotspotRows, AreFoundInOneLookAtTheCode) {
  const auto seconds = [](const std::vector<uint8_t>& code) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 4; ++i) (void)rows_of(blob("nmethod", 0, code.size(), 6, 0), kLow, code);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::vector<uint8_t> code(1u << 20, 0x90);
  const double plain = seconds(code);
  for (const std::vector<uint8_t>& begin :
       {std::vector<uint8_t>{0x8b, 0xc1, 0x2b, 0xca, 0x51, 0x0f, 0x4e, 0xd0},
        std::vector<uint8_t>{0x8b, 0xc2, 0x2b, 0xd1, 0x52, 0x0f, 0x4e, 0xca}}) {
    for (size_t i = 0; i < code.size(); ++i) code[i] = begin[i % begin.size()];
    EXPECT_LT(seconds(code), 8 * plain);
  }
}

// The search for an end goes on where that of another comparison stopped.
TEST(HotspotRows, ComparisonsFarFromTheirEnds) {
  const std::vector<uint8_t> begin = {0x8b, 0xc1, 0x2b, 0xca, 0x51, 0x0f, 0x4e, 0xd0},
                             end = {0x58, 0xeb, 0x01, 0x59};
  std::vector<uint8_t> code(4096, 0x90);
  const auto put = [&](size_t at, const std::vector<uint8_t>& bytes) {
    std::copy(bytes.begin(), bytes.end(), code.begin() + static_cast<ptrdiff_t>(at));
  };
  put(100, begin);  // too far from the end
  put(300, begin);
  put(1300, end);
  put(1400, begin);
  put(1500, end);
  const auto rows = rows_of(blob("nmethod", 0, code.size(), 6, 2), kLow, code);
  EXPECT_EQ(at(rows, 200).second, 6);
  EXPECT_EQ(at(rows, 400).second, 7);
  EXPECT_EQ(at(rows, 1301).second, 6);
  EXPECT_EQ(at(rows, 1350).second, 6);
  EXPECT_EQ(at(rows, 1450).second, 7);
  EXPECT_EQ(at(rows, 1504).second, 6);
}

TEST(HotspotRows, OtherBlobs) {
  EXPECT_EQ(at(rows_of(blob("Interpreter", 0, 100, 0, 0), kLow, {}), 50).first, LT_ROW_INTERPRETED);
  EXPECT_EQ(at(rows_of(blob("I2C/C2I adapters", 0, 100, 0, 0), kLow, {}), 50), std::pair(int{LT_ROW_RSP}, 1));
  EXPECT_EQ(at(rows_of(blob("StubRoutines (1)", 0, 100, 0, 0), kLow, {}), 50).first, LT_ROW_GAP)
      << "they have frame pointers";
  EXPECT_EQ(at(rows_of(blob("Shared Runtime resolve", 0, 100, 8, -1), kLow, {}), 0),
            std::pair(int{LT_ROW_RSP}, 8))
      << "never without its frame";
}

TEST(HotspotRows, CodeThatEndsInTheMiddleOfAnEpilogue) {
  const std::vector<uint8_t> whole = {0x90, 0x90, 0x48, 0x81, 0xc4, 0x20, 1, 0, 0, 0x5d, 0xc3};
  for (size_t n = 0; n <= whole.size(); ++n) {
    const std::vector<uint8_t> code(whole.begin(), whole.begin() + static_cast<long>(n));
    EXPECT_FALSE(rows_of(blob("nmethod", 0, whole.size(), 38, 2), kLow, code).empty()) << n;
  }
  EXPECT_EQ(at(rows_of(blob("nmethod", 0, whole.size(), 38, 2), kLow, whole), 9),
            std::pair(int{LT_ROW_RSP}, 2));
}

constexpr Unsigned5 kOld{0}, kNew{1};  // up to JDK 19, from 20 on

TEST(HotspotLines, Numbers) {
  const auto number = [](Unsigned5 numbers, std::vector<uint8_t> bytes) {
    std::span<const uint8_t> rest(bytes);
    const auto value = numbers.take(rest);
    return std::pair(value, rest.size());
  };
  using Taken = std::pair<std::optional<uint32_t>, size_t>;
  EXPECT_EQ(number(kOld, {0, 9}), Taken(0, 1));
  EXPECT_EQ(number(kOld, {191, 9}), Taken(191, 1));
  EXPECT_EQ(number(kOld, {192, 0, 9}), Taken(192, 1));
  EXPECT_EQ(number(kOld, {193, 191, 9}), Taken(193 + (191 << 6), 1));
  EXPECT_EQ(number(kOld, {255, 255, 255, 255, 255, 9}).second, 1u);
  EXPECT_EQ(number(kNew, {1, 9}), Taken(0, 1));
  EXPECT_EQ(number(kNew, {191, 9}), Taken(190, 1));
  EXPECT_EQ(number(kNew, {192, 1, 9}), Taken(191, 1));
  EXPECT_EQ(number(kNew, {0, 9}).first, std::nullopt);
  EXPECT_EQ(number(kNew, {192}).first, std::nullopt);
  EXPECT_EQ(number(kOld, {}).first, std::nullopt);
}

TEST(HotspotLines, ACompressedTable) {
  // Byte code 0 at line 10, code 5 at line 12; code 305 at line 8, which takes the long form.
  const std::vector<uint8_t> table = {0xff, 0, 20, 5 << 3 | 2, 0xff, 216, 6, 7, 0};
  const std::vector<uint8_t> shifted = {0xff, 1, 21, 5 << 3 | 2, 0xff, 217, 7, 8, 0};
  for (const auto& [bytes, numbers] : {std::pair(table, kOld), std::pair(shifted, kNew)}) {
    EXPECT_EQ(line_at(bytes, 0, numbers).line, 10);
    EXPECT_EQ(line_at(bytes, 4, numbers).line, 10);
    EXPECT_EQ(line_at(bytes, 5, numbers).line, 12);
    EXPECT_EQ(line_at(bytes, 304, numbers).line, 12);
    EXPECT_EQ(line_at(bytes, 305, numbers).line, 8);
    EXPECT_EQ(line_at({}, 3, numbers).line, 0);
    EXPECT_TRUE(line_at(bytes, 0, numbers).whole);
    for (size_t n = 0; n < bytes.size(); ++n)
      EXPECT_FALSE(line_at(std::span(bytes).first(n), 305, numbers).whole) << n;
    const std::vector<uint8_t> hostile(64, 0xff);
    (void)line_at(hostile, 1, numbers);
  }
}

}  // namespace
}  // namespace looptrace::hotspot
