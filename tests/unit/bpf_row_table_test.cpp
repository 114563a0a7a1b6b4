// SPDX-License-Identifier: Apache-2.0
// The kernel's lookup of unwind rows, compiled for user space, over the tables that it is given.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "bpf/row_chunks.h"

namespace {

struct Table {
  std::vector<lt_chunk> chunks;
  size_t looked_up = 0;
};

const lt_chunk* lt_table_chunk(void* table, uint32_t index) {
  auto* t = static_cast<Table*>(table);
  ++t->looked_up;
  return index < t->chunks.size() ? &t->chunks[index] : nullptr;
}

#include "row_table.h"

class RowTable : public testing::Test {
 protected:
  void fill(const std::vector<uint32_t>& pcs) {
    rows_.clear();
    for (const uint32_t pc : pcs) rows_.push_back({pc, LT_ROW_RSP, 0, static_cast<int16_t>(rows_.size())});
    auto made = looptrace::make_row_chunks(rows_);
    layout_ = made.table;
    table_.chunks = std::move(made.chunks);
  }

  // The pc of the row that is found; -1 = none.
  int64_t find(uint32_t address) {
    table_.looked_up = 0;
    const uint64_t word = lt_find_row(&table_, &layout_, address);
    lt_row row;
    std::memcpy(&row, &word, sizeof row);
    return word == LT_NO_ROW ? -1 : int64_t{row.pc};
  }

  // At, before and behind each row.
  void check_all() {
    for (size_t i = 0; i < rows_.size(); ++i) {
      const uint32_t pc = rows_[i].pc;
      ASSERT_EQ(find(pc), pc) << i;
      ASSERT_EQ(find(pc - 1), i == 0 ? -1 : int64_t{rows_[i - 1].pc}) << i;
      const uint32_t next = i + 1 < rows_.size() ? rows_[i + 1].pc : 0xffffffff;
      ASSERT_EQ(find(pc + (next - pc) / 2), pc) << i;
    }
  }

  std::vector<lt_row> rows_;
  lt_row_table layout_{};
  Table table_;
};

TEST_F(RowTable, OneRow) {
  fill({0x1000});
  check_all();
}

TEST_F(RowTable, EachRowOfManyChunksIsFoundInThreeLookups) {
  std::mt19937 random(1);
  std::vector<uint32_t> pcs;
  for (uint32_t pc = 0x401000; pcs.size() < 100'000; pc += 4 + random() % 200) pcs.push_back(pc);
  fill(pcs);
  check_all();
  size_t most = 0;
  for (const uint32_t pc : pcs) {
    find(pc);
    most = std::max(most, table_.looked_up);
  }
  EXPECT_LE(most, 12u) << "at the end of an index chunk all rows behind are searched";
  find(pcs[50'000]);
  EXPECT_LE(table_.looked_up, 3u);
  EXPECT_LE(table_.chunks.size() * sizeof(lt_chunk), pcs.size() * sizeof(lt_row) * 110 / 100);
}

TEST_F(RowTable, AFileMayHaveAllItsRowsInOneStretchOfTheIndex) {
  std::vector<uint32_t> pcs{0x10};
  for (uint32_t i = 0; i < 20'000; ++i) pcs.push_back(0x7fff0000 + i * 2);
  pcs.push_back(0xfffffff0);
  fill(pcs);
  check_all();
}

}  // namespace
