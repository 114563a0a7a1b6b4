// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/source_map.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <tuple>

namespace looptrace::v8 {
namespace {

constexpr size_t kMaxSegments = 1u << 19;
constexpr size_t kMaxSources = 1u << 16;

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

constexpr size_t kMaxSections = 1u << 12;

// A map, or one of the sections that a map is made of.
struct Part {
  uint32_t line = 0, column = 0;  // where it begins in the generated text
  std::string mappings, root;
  std::vector<std::string> sources;
};

// Keeps the members that are needed, of the outermost object and of its sections' maps, and nothing of the
// rest (sourcesContent can be most of the file). The parser does not recurse.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return value(nullptr); }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t n) override {
    return number(n < 0 ? UINT64_MAX : static_cast<uint64_t>(n));
  }
  bool number_unsigned(number_unsigned_t n) override { return number(n); }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool string(string_t& text) override { return value(&text); }
  bool start_object(std::size_t) override {
    ++depth_;
    if (depth_ == kSection && keys_[1] == "sections") {
      if (parts.size() > kMaxSections) return false;
      parts.emplace_back();
    }
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ < keys_.size()) keys_[depth_] = name;
    return true;
  }
  bool end_object() override { return depth_-- > 0; }
  bool start_array(std::size_t) override { return ++depth_ > 0; }
  bool end_array() override { return depth_-- > 0; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  std::vector<Part> parts = std::vector<Part>(1);  // the outermost object first

 private:
  // Depths: the outermost object is 1, its array of sections 2, one of these 3, that one's map or offset 4.
  static constexpr size_t kOutermost = 1, kSection = 3, kInner = 4;

  bool in_section(std::string_view member) const {
    return depth_ >= kInner && keys_[1] == "sections" && keys_[kSection] == member;
  }

  bool number(uint64_t n) {
    if (depth_ != kInner || !in_section("offset")) return true;
    if (n > INT32_MAX) return false;
    if (keys_[kInner] == "line") parts.back().line = static_cast<uint32_t>(n);
    if (keys_[kInner] == "column") parts.back().column = static_cast<uint32_t>(n);
    return true;
  }

  bool value(std::string* text) {
    const size_t of_map = in_section("map") ? kInner : kOutermost;
    Part& part = of_map == kInner ? parts.back() : parts.front();
    const std::string& name = keys_[of_map];
    if (depth_ == of_map && text && name == "mappings") {
      part.mappings = std::move(*text);
    } else if (depth_ == of_map && text && name == "sourceRoot") {
      part.root = std::move(*text);
    } else if (depth_ == of_map + 1 && name == "sources") {
      if (++sources_ > kMaxSources) return false;
      part.sources.push_back(text ? std::move(*text) : std::string());
    }
    return true;
  }

  size_t depth_ = 0, sources_ = 0;
  std::array<std::string, kInner + 1> keys_;  // the last one at each depth
};

}  // namespace

std::optional<int32_t> take_vlq(std::string_view& text) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift <= 30; shift += 5) {
    const int digit = text.empty() ? -1 : base64_digit(text.front());
    if (digit < 0) return std::nullopt;
    text.remove_prefix(1);
    value |= static_cast<uint64_t>(digit & 31) << shift;
    if (digit & 32) continue;
    const uint64_t magnitude = value >> 1;
    if (magnitude > INT32_MAX) return std::nullopt;
    return value & 1 ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
  }
  return std::nullopt;
}

std::string decode_base64(std::string_view text) {
  std::string bytes;
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    const int digit = base64_digit(c);
    if (digit < 0) break;
    group = group << 6 | static_cast<uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(group >> bits & 0xff);
  }
  return bytes;
}

std::optional<SourceMap> SourceMap::parse(std::string_view json) {
  if (json.size() > kMaxText) return std::nullopt;
  if (json.starts_with(")]}'")) {  // a guard against inclusion as a script: its line is not part of the map
    const size_t end = json.find('\n');
    json.remove_prefix(end == std::string_view::npos ? json.size() : end + 1);
  }
  Reader reader;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) return std::nullopt;
  SourceMap map;
  for (Part& part : reader.parts) {
    if (&part != &reader.parts.front())
      map.segments_.push_back({part.line, part.column, -1, 0});  // up to its own first
    if (!map.decode(part.mappings, part.line, part.column)) return std::nullopt;
    if (!part.root.empty() && !part.root.ends_with("/")) part.root += '/';
    for (const std::string& source : part.sources) map.sources_.push_back(part.root + source);
  }
  // Within a line they may come in any order.
  std::stable_sort(map.segments_.begin(), map.segments_.end(), [](const Segment& a, const Segment& b) {
    return std::tie(a.line, a.column) < std::tie(b.line, b.column);
  });
  map.segments_.shrink_to_fit();
  return map;
}

// Numbers in `mappings` count from where the section begins; its sources come behind those that there are.
bool SourceMap::decode(std::string_view mappings, uint32_t line, uint32_t first_column) {
  const auto first_source = static_cast<int64_t>(sources_.size());
  int64_t column = first_column, source = 0, original = 0;
  while (!mappings.empty()) {
    const char c = mappings.front();
    if (c == ';' || c == ',') {
      if (c == ';') {
        ++line;
        column = 0;
      }
      mappings.remove_prefix(1);
      continue;
    }
    int32_t fields[5];
    int n = 0;
    while (!mappings.empty() && mappings.front() != ',' && mappings.front() != ';') {
      const auto field = n < 5 ? take_vlq(mappings) : std::nullopt;
      if (!field) return false;
      fields[n++] = *field;
    }
    if (n != 1 && n != 4 && n != 5) return false;
    column += fields[0];
    if (n > 1) {
      source += fields[1];
      original += fields[2];
    }
    if (column < 0 || column > INT32_MAX || source < 0 || source > INT32_MAX / 2 || original < 0 ||
        original > INT32_MAX || segments_.size() >= kMaxSegments)
      return false;
    segments_.push_back({line, static_cast<uint32_t>(column),
                         n > 1 ? static_cast<int32_t>(first_source + source) : -1,
                         static_cast<uint32_t>(original)});
  }
  return true;
}

std::optional<SourceMap::Original> SourceMap::find(int line, int column) const {
  if (line < 0 || column < 0) return std::nullopt;
  const auto at = static_cast<uint32_t>(line), to = static_cast<uint32_t>(column);
  const auto after = std::partition_point(segments_.begin(), segments_.end(), [&](const Segment& s) {
    return s.line < at || (s.line == at && s.column <= to);
  });
  if (after == segments_.begin()) return std::nullopt;
  const Segment& found = *(after - 1);
  if (found.line != at || found.source < 0 || static_cast<size_t>(found.source) >= sources_.size() ||
      sources_[static_cast<size_t>(found.source)].empty())
    return std::nullopt;
  return Original{sources_[static_cast<size_t>(found.source)], static_cast<int>(found.original)};
}

size_t SourceMap::bytes() const {
  size_t sum = sizeof *this + segments_.capacity() * sizeof(Segment);
  for (const std::string& source : sources_) sum += sizeof(std::string) + source.capacity();
  return sum;
}

}  // namespace looptrace::v8
