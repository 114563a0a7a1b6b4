// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "looptrace.h"

namespace looptrace {

/// A file's unwind rows as the kernel's table has them (bpf/row_table.h).
struct RowChunks {
  lt_row_table table{};  ///< but for the file's number
  std::vector<lt_chunk> chunks;
};

/// `rows`: sorted by pc, not empty.
RowChunks make_row_chunks(const std::vector<lt_row>& rows);

}  // namespace looptrace
