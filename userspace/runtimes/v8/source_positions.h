// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace looptrace::v8 {

/// An entry of V8's source position table: pairs of differences to the entry before, in base-128, a
/// position's zigzag. A code offset's is negated (zigzag, too) where the position is no statement's; from V8
/// 14 on, it has two flags below it.
struct PositionEntry {
  int64_t code = 0;   ///< offset in the code
  int position = 0;   ///< in characters from the script's start
  int inlining = -1;  ///< optimized code: index in its table of inlined calls; -1 = its own function's
};

/// The last entry at `offset` or before. Nothing if there is none, if it has no position, or if the table is
/// not well formed. `flags`: code offsets have flags below them.
std::optional<PositionEntry> find_position(std::span<const uint8_t> table, int64_t offset,
                                           bool flags = false);

/// The same of a position that stands alone.
std::optional<PositionEntry> unpack_position(int64_t position);

/// The bytecode's number, from 0, whose baseline code `pc` lies in, by a table of the code's sizes.
/// `returns`: pc is a return address. Nothing for what comes before the first.
std::optional<int> find_bytecode(std::span<const uint8_t> table, uint64_t pc, bool returns);

}  // namespace looptrace::v8
