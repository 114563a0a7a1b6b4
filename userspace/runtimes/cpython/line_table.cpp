// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/line_table.h"

#include <limits>

namespace looptrace::cpython {
namespace {

// Lines are summed wide and cut at the end: a hostile table must not overflow.
std::optional<int> to_line(int64_t line) {
  if (line < 0 || line > std::numeric_limits<int>::max()) return std::nullopt;
  return static_cast<int>(line);
}

// Variable-length integers: 6 bits a byte, least significant first, bit 6 = more follow.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  bool at_end() const { return at_ >= bytes_.size(); }
  uint8_t byte() { return at_end() ? 0 : bytes_[at_++]; }
  void skip(size_t n) { at_ += n; }

  uint32_t varint() {
    uint32_t value = 0;
    for (unsigned shift = 0;; shift += 6) {
      const uint8_t b = byte();
      if (shift < 32) value |= static_cast<uint32_t>(b & 0x3f) << shift;
      if (!(b & 0x40) || at_end()) return value;
    }
  }

  // Sign in bit 0.
  int64_t signed_varint() {
    const uint32_t value = varint();
    const int64_t magnitude = value >> 1;
    return value & 1 ? -magnitude : magnitude;
  }

 private:
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

// Kinds of a location entry. 0 to 9 carry columns only.
constexpr unsigned kOneLine0 = 10;
constexpr unsigned kOneLine2 = 12;
constexpr unsigned kNoColumns = 13;
constexpr unsigned kLong = 14;
constexpr unsigned kNone = 15;

}  // namespace

std::optional<int> line_by_lnotab(std::span<const uint8_t> table, int first_line, int64_t offset) {
  int64_t line = first_line;
  int64_t at = 0;
  for (size_t i = 0; i + 1 < table.size(); i += 2) {
    at += table[i];
    if (at > offset) break;
    line += static_cast<int8_t>(table[i + 1]);
  }
  return to_line(line);
}

std::optional<int> line_by_ranges(std::span<const uint8_t> table, int first_line, int64_t offset) {
  if (offset < 0) return first_line;
  int64_t line = first_line;
  int64_t end = 0;
  for (size_t i = 0; i + 1 < table.size(); i += 2) {
    const auto delta = static_cast<int8_t>(table[i + 1]);
    const bool has_line = delta != -128;
    if (has_line) line += delta;
    end += table[i];
    if (end > offset) return has_line ? to_line(line) : std::nullopt;
  }
  return std::nullopt;
}

std::optional<int> line_by_locations(std::span<const uint8_t> table, int first_line, int64_t offset) {
  // The instruction before the first is where a frame of 3.11 and 3.12 begins.
  if (offset < 0) return offset >= -2 ? std::optional<int>(first_line) : std::nullopt;
  int64_t line = first_line;
  int64_t end = 0;
  Reader in(table);
  while (!in.at_end()) {
    const uint8_t head = in.byte();
    const unsigned kind = head >> 3 & 15;
    end += int64_t{2} * ((head & 7) + 1);
    if (kind == kLong || kind == kNoColumns) line += in.signed_varint();
    if (kind >= kOneLine0 && kind <= kOneLine2) line += kind - kOneLine0;
    if (end > offset) return kind == kNone ? std::nullopt : to_line(line);

    if (kind < kOneLine0) {
      in.skip(1);
    } else if (kind <= kOneLine2) {
      in.skip(2);
    } else if (kind == kLong) {
      for (int i = 0; i < 3; ++i) in.varint();  // end line, column, end column
    }
  }
  return std::nullopt;
}

}  // namespace looptrace::cpython
