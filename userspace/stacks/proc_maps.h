// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace looptrace {

/// One line of /proc/PID/maps.
struct MapsLine {
  uint64_t start = 0, end = 0, offset = 0, inode = 0;
  bool executable = false;
  std::string path;  ///< as the kernel prints it, newlines unescaped; empty for anonymous memory
};

std::optional<MapsLine> parse_maps_line(std::string_view line);

/// "start-end" as /proc/PID/map_files names its entries: without the leading zeros of /proc/PID/maps.
std::string map_files_name(uint64_t start, uint64_t end);

}  // namespace looptrace
