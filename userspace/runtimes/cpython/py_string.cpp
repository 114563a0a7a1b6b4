// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/py_string.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "base/files.h"

namespace looptrace::cpython {
namespace {

constexpr size_t kMaxData = 1024;
constexpr size_t kMaxHeader = 80;
constexpr size_t kFirstRead = 256;  // holds nearly every name together with its header

void append_utf8(std::string& out, uint32_t c) {
  if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) c = 0xfffd;
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  const int tails = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  static constexpr std::array<uint8_t, 4> kLead = {0, 0xc0, 0xe0, 0xf0};
  out += static_cast<char>(kLead[tails] | c >> 6 * tails);
  for (int i = tails - 1; i >= 0; --i) out += static_cast<char>(0x80 | (c >> 6 * i & 0x3f));
}

std::string decode(std::span<const uint8_t> data, unsigned width) {
  std::string out;
  out.reserve(data.size());
  for (size_t i = 0; i + width <= data.size(); i += width) {
    uint32_t c = 0;
    std::memcpy(&c, data.data() + i, width);
    append_utf8(out, c);
  }
  return out;
}

// Where the characters of a str object lie in it, of which the beginning is at hand.
struct Text {
  size_t at, size;  // bytes
  unsigned width;
};

std::optional<Text> find_text(const Offsets& offsets, std::span<const uint8_t> object) {
  const auto& layout = offsets.unicode;
  if (object.size() < static_cast<size_t>(layout.ascii_data)) return std::nullopt;
  uint64_t length = 0;
  uint32_t state = 0;
  std::memcpy(&length, object.data() + layout.length, sizeof length);
  std::memcpy(&state, object.data() + layout.state, sizeof state);
  state >>= layout.kind_shift;
  const unsigned width = state & 7;
  const bool compact = state & 8;
  const bool ascii = state & 16;
  if (!compact || (width != 1 && width != 2 && width != 4) || (ascii && width != 1)) return std::nullopt;
  if (length > INT32_MAX) return std::nullopt;
  return Text{static_cast<size_t>(ascii ? layout.ascii_data : layout.compact_data), length * width, width};
}

}  // namespace

std::optional<std::string> read_string(const RemoteMemory& memory, const Offsets& offsets, uint64_t address) {
  if (address % 8 != 0) return std::nullopt;
  std::array<uint8_t, kMaxHeader + kMaxData> bytes;
  size_t have = memory.read_some(address, bytes.data(), kFirstRead);
  const auto text = find_text(offsets, {bytes.data(), have});
  if (!text) return std::nullopt;
  const size_t size = std::min(text->size, kMaxData);
  if (text->at + size > have) have = memory.read_some(address, bytes.data(), text->at + size);
  if (have < text->at + size) return std::nullopt;
  const std::string read = decode({bytes.data() + text->at, size}, text->width);
  return size < text->size ? cut_short(read) : read;
}

std::optional<std::string> decode_string(const Offsets& offsets, std::span<const uint8_t> object) {
  const auto text = find_text(offsets, object);
  if (!text || text->at > object.size()) return std::nullopt;
  const std::span<const uint8_t> data = object.subspan(text->at);
  const std::string read = decode(data.first(std::min(text->size, data.size())), text->width);
  return data.size() < text->size ? cut_short(read) : read;
}

}  // namespace looptrace::cpython
