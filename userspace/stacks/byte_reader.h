// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace looptrace {

/// A cursor over bytes that nobody vouches for. A read past the end gives 0 and makes the reader fail for
/// good, so a parser may check once per record instead of once per field.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes)
      : begin_(bytes.data()), at_(begin_), end_(begin_ + bytes.size()) {}

  bool failed() const { return failed_; }
  bool done() const { return at_ >= end_; }
  size_t offset() const { return static_cast<size_t>(at_ - begin_); }
  size_t left() const { return static_cast<size_t>(end_ - at_); }

  /// A little-endian integer.
  template <typename T>
  T get() {
    T value{};
    if (left() < sizeof value) {
      fail();
      return value;
    }
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  /// LEB128. Bits past the 64th are dropped; an encoding of more than 16 bytes is refused.
  uint64_t uleb() {
    uint64_t value = 0;
    for (unsigned i = 0; i < 16; ++i) {
      const uint8_t byte = get<uint8_t>();
      if (i < 10) value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if (!(byte & 0x80)) return value;
    }
    fail();
    return 0;
  }

  int64_t sleb() {
    uint64_t value = 0;
    for (unsigned i = 0; i < 16; ++i) {
      const uint8_t byte = get<uint8_t>();
      if (i < 10) value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if (!(byte & 0x80)) {
        if (i < 9 && (byte & 0x40)) value |= ~uint64_t{0} << (7 * (i + 1));
        return static_cast<int64_t>(value);
      }
    }
    fail();
    return 0;
  }

  /// The next `size` bytes; empty and failed if there are fewer.
  std::string_view bytes(uint64_t size) {
    if (size > left()) {
      fail();
      return {};
    }
    const std::string_view taken(at_, static_cast<size_t>(size));
    at_ += size;
    return taken;
  }

  /// A string up to its NUL, which is consumed.
  std::string_view c_string() {
    const auto* nul = static_cast<const char*>(std::memchr(at_, 0, left()));
    if (!nul) {
      fail();
      return {};
    }
    const std::string_view text(at_, static_cast<size_t>(nul - at_));
    at_ = nul + 1;
    return text;
  }

 private:
  void fail() {
    failed_ = true;
    at_ = end_;
  }

  const char* begin_;
  const char* at_;
  const char* end_;
  bool failed_ = false;
};

}  // namespace looptrace
