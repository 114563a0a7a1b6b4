// SPDX-License-Identifier: Apache-2.0
#include "stacks/proc_maps.h"

#include <charconv>
#include <cstdio>

namespace looptrace {
namespace {

// Takes a number and the separator behind it.
bool take_number(std::string_view& text, int base, char separator, uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end == text.data() + text.size() || *end != separator) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()) + 1);
  return true;
}

// seq_file_path() escapes newlines only.
std::string unescape(std::string_view path) {
  std::string text;
  text.reserve(path.size());
  for (size_t i = 0; i < path.size();) {
    if (path.substr(i, 4) == "\\012") {
      text += '\n';
      i += 4;
    } else {
      text += path[i++];
    }
  }
  return text;
}

}  // namespace

std::optional<MapsLine> parse_maps_line(std::string_view line) {
  MapsLine map;
  if (!take_number(line, 16, '-', map.start) || !take_number(line, 16, ' ', map.end)) return std::nullopt;
  if (map.start >= map.end || line.size() < 5 || line[4] != ' ') return std::nullopt;
  map.executable = line[2] == 'x';
  line.remove_prefix(5);
  if (!take_number(line, 16, ' ', map.offset)) return std::nullopt;
  const size_t device_end = line.find(' ');
  if (device_end == std::string_view::npos) return std::nullopt;
  line.remove_prefix(device_end + 1);
  size_t digits = 0;
  while (digits < line.size() && line[digits] >= '0' && line[digits] <= '9') ++digits;
  const auto [end, error] = std::from_chars(line.data(), line.data() + digits, map.inode);
  if (error != std::errc()) return std::nullopt;
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  const size_t path = line.find_first_not_of(' ');
  if (path != std::string_view::npos) map.path = unescape(line.substr(path));
  return map;
}

std::string map_files_name(uint64_t start, uint64_t end) {
  char text[40];
  std::snprintf(text, sizeof text, "%llx-%llx", static_cast<unsigned long long>(start),
                static_cast<unsigned long long>(end));
  return text;
}

}  // namespace looptrace
