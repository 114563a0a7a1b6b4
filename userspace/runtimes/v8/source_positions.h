// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace looptrace::v8 {

/// The source position (in characters from the script's start) of the bytecode at `offset`, by a V8 source
/// position table: pairs of differences to the entry before, in zigzag base-128; a bytecode offset's is
/// negated where the position is no statement's. Nothing if the table has no entry up to there or is not well
/// formed.
std::optional<int> find_position(std::span<const uint8_t> table, int offset);

}  // namespace looptrace::v8
