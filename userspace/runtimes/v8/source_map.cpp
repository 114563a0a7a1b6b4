// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/source_map.h"

#include <algorithm>
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

// Keeps the three members of the outermost object that are needed, and nothing of the rest (sourcesContent
// can be most of the file). The parser does not recurse.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return value(nullptr); }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool string(string_t& text) override { return value(&text); }
  bool start_object(std::size_t) override { return ++depth_ > 0; }
  bool key(string_t& name) override {
    if (depth_ == 1) key_ = name;
    return true;
  }
  bool end_object() override { return depth_-- > 0; }
  bool start_array(std::size_t) override { return ++depth_ > 0; }
  bool end_array() override { return depth_-- > 0; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  std::string mappings, root;
  std::vector<std::string> sources;

 private:
  bool value(std::string* text) {
    if (depth_ == 1 && text && key_ == "mappings") {
      mappings = std::move(*text);
    } else if (depth_ == 1 && text && key_ == "sourceRoot") {
      root = std::move(*text);
    } else if (depth_ == 2 && key_ == "sources") {
      if (sources.size() >= kMaxSources) return false;
      sources.push_back(text ? std::move(*text) : std::string());
    }
    return true;
  }

  int depth_ = 0;
  std::string key_;
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
  if (!map.decode(reader.mappings)) return std::nullopt;
  if (!reader.root.empty() && !reader.root.ends_with("/")) reader.root += '/';
  for (const std::string& source : reader.sources) map.sources_.push_back(reader.root + source);
  return map;
}

bool SourceMap::decode(std::string_view mappings) {
  uint32_t line = 0;
  int64_t column = 0, source = 0, original = 0;
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
    if (column < 0 || column > INT32_MAX || source < 0 || source > INT32_MAX || original < 0 ||
        original > INT32_MAX || segments_.size() >= kMaxSegments)
      return false;
    segments_.push_back({line, static_cast<uint32_t>(column), n > 1 ? static_cast<int32_t>(source) : -1,
                         static_cast<uint32_t>(original)});
  }
  // Within a line they may come in any order.
  std::stable_sort(segments_.begin(), segments_.end(), [](const Segment& a, const Segment& b) {
    return std::tie(a.line, a.column) < std::tie(b.line, b.column);
  });
  segments_.shrink_to_fit();
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
