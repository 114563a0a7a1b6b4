// SPDX-License-Identifier: Apache-2.0
#include "trace/off_cpu_place.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

namespace looptrace {

std::optional<OffCpuPlace> parse_off_cpu_place(std::string_view text) {
  OffCpuPlace place;
  const char* const end = text.data() + text.size();
  if (std::from_chars(text.data(), end, place.nr).ec != std::errc()) return std::nullopt;
  std::vector<uint64_t> words;
  for (size_t at = text.find("0x"); at != std::string_view::npos; at = text.find("0x", at + 2)) {
    uint64_t value = 0;
    std::from_chars(text.data() + at + 2, end, value, 16);
    words.push_back(value);
  }
  if (words.size() != (place.nr < 0 ? 2 : 2 + place.args.size())) return std::nullopt;
  place.ip = words.back();
  words.pop_back();
  place.sp = words.back();
  words.pop_back();
  std::copy(words.begin(), words.end(), place.args.begin());
  return place;
}

std::optional<OffCpuPlace> off_cpu_place(const ProcFs& procfs, pid_t pid, pid_t tid) {
  const auto text = procfs.read(pid, "task/" + std::to_string(tid) + "/syscall");
  return text ? parse_off_cpu_place(*text) : std::nullopt;
}

}  // namespace looptrace
