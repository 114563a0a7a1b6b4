// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "looptrace.h"

namespace looptrace {

class ElfFile;

/// Call frame information, as the file has it.
struct EhFrameInput {
  std::string_view bytes;
  uint64_t address = 0;       ///< of the first byte, in the file's own addresses
  bool ends_at_zero = false;  ///< the size is not known: a zero length ends it
};

/// Compiles .eh_frame (LSB 5.0 core, 10.6; DWARF 5, 6.4) to rows sorted by pc: equal neighbours merged, a
/// GAP row wherever no FDE covers, an UNSUPPORTED row for rules a row cannot say. x86-64 only. Entries
/// that do not parse are left out. Work is linear in the input, and no more than kMaxRows rows come out.
/// `functions`, if given, are told: where the entries begin, sorted.
std::vector<lt_row> compile_eh_frame(const EhFrameInput& input, std::vector<uint64_t>* functions = nullptr);

/// The rows of a file: from section .eh_frame, or by PT_GNU_EH_FRAME where section headers are stripped.
std::vector<lt_row> load_rows(const ElfFile& file, std::vector<uint64_t>* functions = nullptr);

/// The row that holds at `pc` (the file's own address), or a GAP row.
lt_row find_row(const std::vector<lt_row>& rows, uint64_t pc);

inline constexpr size_t kMaxRows = 8u << 20;

}  // namespace looptrace
