// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace looptrace::cpython {

/// The source line of one instruction, by the three formats that CPython has used. `offset` is in bytes of
/// bytecode; a negative one (a frame not begun; -2 from 3.11 on) gives `first_line`. Nothing = the table says
/// that the instruction has no line, or does not reach that far. Any bytes are accepted as a table.

/// co_lnotab (<= 3.9): pairs of (bytecode delta, signed line delta), no end.
std::optional<int> line_by_lnotab(std::span<const uint8_t> table, int first_line, int64_t offset);

/// co_linetable of 3.10 (PEP 626): pairs of (bytecode length, signed line delta; -128 = no line).
std::optional<int> line_by_ranges(std::span<const uint8_t> table, int first_line, int64_t offset);

/// co_linetable (3.11+, PEP 657): entries of a head byte (1, 4 bits of kind, 3 bits of length - 1 in code
/// units) and what the kind says.
std::optional<int> line_by_locations(std::span<const uint8_t> table, int first_line, int64_t offset);

}  // namespace looptrace::cpython
