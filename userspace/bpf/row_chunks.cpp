// SPDX-License-Identifier: Apache-2.0
#include "bpf/row_chunks.h"

#include <algorithm>
#include <cstddef>

#include "base/buckets.h"

namespace looptrace {

RowChunks make_row_chunks(const std::vector<lt_row>& rows) {
  RowChunks made;
  lt_row_table& table = made.table;
  table.rows = static_cast<uint32_t>(rows.size());
  table.first = rows.front().pc;
  const uint64_t span = rows.back().pc - table.first;
  table.shift = bucket_shift(span, rows.size());  // 6 % more memory
  const size_t entries = (span >> table.shift) + 1;
  const size_t row_chunks = (rows.size() + LT_ROWS_PER_CHUNK - 1) / LT_ROWS_PER_CHUNK;
  made.chunks.resize(row_chunks + (entries + LT_INDEX_PER_CHUNK - 1) / LT_INDEX_PER_CHUNK);
  for (size_t i = 0; i < rows.size(); i += LT_ROWS_PER_CHUNK)
    std::copy_n(rows.begin() + static_cast<ptrdiff_t>(i),
                std::min<size_t>(LT_ROWS_PER_CHUNK, rows.size() - i),
                made.chunks[i / LT_ROWS_PER_CHUNK].rows);
  size_t row = 0;
  for (size_t i = 0; i < (made.chunks.size() - row_chunks) * LT_INDEX_PER_CHUNK; ++i) {
    const uint64_t begin = table.first + (uint64_t{i} << table.shift);
    while (row + 1 < rows.size() && rows[row + 1].pc <= begin) ++row;
    made.chunks[row_chunks + i / LT_INDEX_PER_CHUNK].index[i % LT_INDEX_PER_CHUNK] =
        static_cast<uint32_t>(row);
  }
  return made;
}

}  // namespace looptrace
