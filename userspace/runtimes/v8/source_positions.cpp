// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/source_positions.h"

#include <utility>

namespace looptrace::v8 {
namespace {

// Least significant group first, the top bit says that more follow.
std::optional<uint64_t> take(std::span<const uint8_t>& bytes) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 63; shift += 7) {
    if (bytes.empty()) return std::nullopt;
    const uint8_t byte = bytes.front();
    bytes = bytes.subspan(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  return std::nullopt;
}

// The lowest bit is the sign.
int64_t zigzag(uint64_t value) { return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1); }

// Whether the position is a statement's is told by the sign, or by the lowest bit, with another flag above
// it.
int64_t code_difference(uint64_t value, bool flags) {
  if (flags) return static_cast<int64_t>(value >> 2);
  const int64_t step = zigzag(value);
  return step >= 0 ? step : -(step + 1);
}

constexpr int64_t kMax = int64_t{1} << 48;

}  // namespace

// The bits of a position: external (1), script offset + 1 (30), inlining + 1 (16).
std::optional<PositionEntry> unpack_position(int64_t position) {
  if (position < 0 || position > kMax || position & 1) return std::nullopt;
  PositionEntry entry;
  entry.position = static_cast<int>(position >> 1 & 0x3fffffff) - 1;
  entry.inlining = static_cast<int>(position >> 31 & 0xffff) - 1;
  if (entry.position < 0) return std::nullopt;
  return entry;
}

std::optional<PositionEntry> find_position(std::span<const uint8_t> table, int64_t offset, bool flags) {
  int64_t code = -1, position = 0;  // the first difference is to the function's entry, which has offset -1
  std::optional<std::pair<int64_t, int64_t>> found;
  while (!table.empty()) {
    const auto to_code = take(table);
    const auto to_position = to_code ? take(table) : std::nullopt;
    if (!to_position) return std::nullopt;
    const int64_t code_step = code_difference(*to_code, flags), position_step = zigzag(*to_position);
    if (code_step > kMax || position_step > kMax || position_step < -kMax) return std::nullopt;
    code += code_step;
    position += position_step;
    if (code > offset) break;
    if (code > kMax || position < -kMax || position > kMax) return std::nullopt;
    found = {code, position};
  }
  if (!found) return std::nullopt;
  auto entry = unpack_position(found->second);
  if (entry) entry->code = found->first;
  return entry;
}

std::optional<int> find_bytecode(std::span<const uint8_t> table, uint64_t pc, bool returns) {
  uint64_t end = 0;
  for (int n = -1; !table.empty(); ++n) {  // the first size is that of the function's entry
    uint64_t size = 0;
    for (unsigned shift = 0;; shift += 7) {
      if (table.empty() || shift > 28) return std::nullopt;
      const uint8_t byte = table.front();
      table = table.subspan(1);
      size |= uint64_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80)) break;
    }
    end += size;
    if (pc < end || (returns && pc == end)) return n >= 0 ? std::optional<int>(n) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace looptrace::v8
