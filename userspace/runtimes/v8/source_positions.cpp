// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/source_positions.h"

namespace looptrace::v8 {
namespace {

// Least significant group first, the top bit says that more follow, the lowest bit is the sign.
std::optional<int64_t> take(std::span<const uint8_t>& bytes) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 63; shift += 7) {
    if (bytes.empty()) return std::nullopt;
    const uint8_t byte = bytes.front();
    bytes = bytes.subspan(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) {
      return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
    }
  }
  return std::nullopt;
}

// The bits of a position: external (1), script offset + 1 (30), inlining id.
std::optional<int> script_offset(int64_t position) {
  if (position < 0 || position & 1) return std::nullopt;
  const int offset = static_cast<int>(position >> 1 & 0x3fffffff) - 1;
  if (offset < 0) return std::nullopt;
  return offset;
}

}  // namespace

std::optional<int> find_position(std::span<const uint8_t> table, int offset) {
  constexpr int64_t kMax = int64_t{1} << 48;
  int64_t code = -1, position = 0;  // the first difference is to the function's entry, which has offset -1
  std::optional<int64_t> found;
  while (!table.empty()) {
    const auto code_step = take(table);
    const auto position_step = code_step ? take(table) : std::nullopt;
    if (!position_step || *code_step > kMax || *code_step < -kMax || *position_step > kMax ||
        *position_step < -kMax)
      return std::nullopt;
    code += *code_step >= 0 ? *code_step : -(*code_step + 1);
    position += *position_step;
    if (code > offset) break;
    if (position < 0 || position > kMax) return std::nullopt;
    found = position;
  }
  return found ? script_offset(*found) : std::nullopt;
}

}  // namespace looptrace::v8
