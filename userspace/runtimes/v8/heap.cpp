// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/heap.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/files.h"

namespace looptrace::v8 {
namespace {

constexpr size_t kMaxMaps = 64;
constexpr int kMaxDepth = 8;

// Bits of a string's instance type (v8dbg_StringRepresentationMask and the tags beside it).
constexpr uint16_t kRepresentation = 7, kOneByte = 8, kUncached = 16;
constexpr uint16_t kSequential = 0, kCons = 1, kExternal = 2, kSliced = 3, kThin = 5;

void append_utf8(char32_t c, std::string& into) {
  if (c < 0x80) {
    into += static_cast<char>(c);
  } else if (c < 0x800) {
    into += static_cast<char>(0xc0 | c >> 6);
    into += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    into += static_cast<char>(0xe0 | c >> 12);
    into += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    into += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    into += static_cast<char>(0xf0 | c >> 18);
    into += static_cast<char>(0x80 | (c >> 12 & 0x3f));
    into += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    into += static_cast<char>(0x80 | (c & 0x3f));
  }
}

std::string to_utf8(const std::u16string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char16_t c = text[i];
    const bool high = c >= 0xd800 && c < 0xdc00, low = c >= 0xdc00 && c < 0xe000;
    if (high && i + 1 < text.size() && text[i + 1] >= 0xdc00 && text[i + 1] < 0xe000) {
      append_utf8(0x10000 + ((c - 0xd800u) << 10) + (text[++i] - 0xdc00u), out);
    } else {
      append_utf8(high || low ? 0xfffd : c, out);
    }
  }
  return out;
}

}  // namespace

std::optional<uint16_t> Heap::type_of_map(uint64_t map) const {
  if (!is_object(map)) return std::nullopt;
  return memory_.get<uint16_t>(map - 1 + static_cast<uint64_t>(layout_.map.instance_type));
}

bool Heap::read(uint64_t object, uint16_t type, void* into, size_t size) {
  uint64_t map = 0;
  if (!is_object(object) || size < sizeof map || !memory_.read(object - 1, into, size)) return false;
  std::memcpy(&map, into, sizeof map);
  if (const auto known = maps_.find(map); known != maps_.end()) return known->second == type;
  if (type_of_map(map) != type) return false;
  if (maps_.size() < kMaxMaps) maps_.emplace(map, type);
  return true;
}

bool Heap::is(uint64_t object, uint16_t type) {
  uint64_t map = 0;
  return read(object, type, &map, sizeof map);
}

std::optional<int> Heap::length(uint64_t array, uint16_t type) {
  std::array<uint64_t, 2> head;  // map, length
  if (!read(array, type, head.data(), sizeof head) || !is_smi(head[1])) return std::nullopt;
  return to_int(head[1]);
}

std::vector<uint8_t> Heap::byte_array(uint64_t object, uint16_t type, size_t limit) {
  const int size = length(object, type).value_or(0);
  if (size <= 0 || static_cast<size_t>(size) > limit) return {};
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  if (!memory_.read(object - 1 + static_cast<uint64_t>(layout_.array.data), bytes.data(), bytes.size()))
    return {};
  return bytes;
}

std::optional<Heap::String> Heap::string(uint64_t object) const {
  std::array<uint8_t, 32> bytes;
  if (!is_object(object) || !memory_.read(object - 1, bytes.data(), bytes.size())) return std::nullopt;
  uint64_t map = 0;
  std::memcpy(&map, bytes.data(), sizeof map);
  const auto type = type_of_map(map);
  if (!type || *type >= layout_.type.first_nonstring) return std::nullopt;
  String s{*type, 0, 0, 0};
  std::memcpy(&s.length, bytes.data() + layout_.string.length, sizeof s.length);
  std::memcpy(&s.first, bytes.data() + 16, sizeof s.first);
  std::memcpy(&s.second, bytes.data() + 24, sizeof s.second);
  if (s.length > (1u << 30)) return std::nullopt;
  return s;
}

std::optional<Heap::Characters> Heap::characters(uint64_t object) const {
  uint64_t skipped = 0;
  std::optional<uint32_t> length;  // of the outermost string: a slice's parent is longer
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    const auto s = string(object);
    if (!s) return std::nullopt;
    if (!length) length = s->length;
    const uint64_t width = s->type & kOneByte ? 1 : 2;
    const auto piece = [&](uint64_t address) -> std::optional<Characters> {
      if (skipped + *length > s->length) return std::nullopt;
      return Characters{address + skipped * width, *length, width == 2};
    };
    switch (s->type & kRepresentation) {
      case kSequential:
        return piece(object - 1 + static_cast<uint64_t>(layout_.string.chars));
      case kExternal:
        if (s->type & kUncached) return std::nullopt;
        return piece(word(object, layout_.string.resource_data));
      case kCons: {
        const auto second = string(s->second);  // flattened: all is in the first
        if (!second || second->length != 0) return std::nullopt;
        object = s->first;
        break;
      }
      case kSliced:
        skipped += static_cast<uint32_t>(to_int(word(object, layout_.string.offset)));
        object = s->first;
        break;
      case kThin:
        object = s->first;
        break;
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;
}

bool Heap::append(const Characters& piece, std::u16string& into) const {
  if (piece.length == 0) return true;
  if (piece.two_bytes) {
    std::u16string part(piece.length, 0);
    if (!memory_.read(piece.address, part.data(), 2 * part.size())) return false;
    into += part;
  } else {
    std::vector<uint8_t> part(piece.length);
    if (!memory_.read(piece.address, part.data(), part.size())) return false;
    into.append(part.begin(), part.end());
  }
  return true;
}

bool Heap::append(uint64_t object, size_t limit, int depth, std::u16string& into) const {
  if (into.size() >= limit) return true;
  if (auto flat = characters(object)) {
    flat->length = static_cast<uint32_t>(std::min<size_t>(flat->length, limit - into.size()));
    return append(*flat, into);
  }
  const auto s = string(object);
  if (!s || (s->type & kRepresentation) != kCons || depth >= kMaxDepth) return false;
  return append(s->first, limit, depth + 1, into) && append(s->second, limit, depth + 1, into);
}

std::optional<std::string> Heap::text(uint64_t object, size_t limit) const {
  std::u16string text;
  if (!append(object, limit + 1, 0, text)) return std::nullopt;
  if (text.size() <= limit) return to_utf8(text);
  const bool in_pair = text[limit - 1] >= 0xd800 && text[limit - 1] < 0xdc00;
  return cut_short(to_utf8(text.substr(0, in_pair ? limit - 1 : limit)));
}

std::string Heap::end_of_text(uint64_t object, size_t limit) const {
  auto flat = characters(object);
  if (!flat) return {};
  if (flat->length > limit) {
    flat->address += (flat->length - limit) * (flat->two_bytes ? 2 : 1);
    flat->length = static_cast<uint32_t>(limit);
  }
  if (!flat->two_bytes) {  // nearly always ASCII, and long
    std::string bytes(flat->length, '\0');
    if (!memory_.read(flat->address, bytes.data(), bytes.size())) return {};
    if (std::all_of(bytes.begin(), bytes.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; }))
      return bytes;
  }
  std::u16string text;
  return append(*flat, text) ? to_utf8(text) : std::string();
}

}  // namespace looptrace::v8
