// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "looptrace.h"

namespace looptrace {

class ElfFile;

/// Code as a file has it.
struct CodeInput {
  std::string_view bytes;
  uint64_t address = 0;           ///< of the first byte, in the file's own addresses
  std::vector<uint64_t> entries;  ///< where functions begin
  std::optional<uint64_t> start;  ///< where the kernel enters it, nothing having called it
};

/// Rows of functions from their code alone: every way through it from the entries is followed, and how far
/// each instruction has moved rsp is noted, and where rbp was saved. Sorted by pc, GAP where nothing leads,
/// UNSUPPORTED where the code cannot be followed. x86-64 as compilers emit it for C, without AVX. Work is
/// linear in the code.
std::vector<lt_row> rows_from_code(const CodeInput& input);

/// Fills the gaps of a file's `rows` where it has no tables of its own code: musl's libc, which is built
/// without, and the start-up code of programs that use it, where their stacks end. `functions` are those that
/// have tables: they call the library's.
void add_code_rows(const ElfFile& file, bool program, std::span<const uint64_t> functions,
                   std::vector<lt_row>& rows);

}  // namespace looptrace
