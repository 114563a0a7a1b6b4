// SPDX-License-Identifier: Apache-2.0
#include "targets/procfs.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/files.h"
#include "base/free_with.h"

namespace looptrace {
namespace {

template <typename T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<pid_t> numbered_entries(const std::string& directory) {
  std::vector<pid_t> found;
  std::unique_ptr<DIR, FreeWith<closedir>> dir(::opendir(directory.c_str()));
  if (!dir) return found;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (const auto pid = number<pid_t>(entry->d_name); pid && *pid > 0) found.push_back(*pid);
  }
  return found;
}

uint64_t tick_ns() {
  static const uint64_t ns = 1'000'000'000ull / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
  return ns;
}

}  // namespace

std::string ProcFs::path(pid_t pid, std::string_view name) const {
  std::string path = root_;
  path += '/';
  path += std::to_string(pid);
  path += '/';
  path += name;
  return path;
}

std::vector<pid_t> ProcFs::pids() const { return numbered_entries(root_); }

std::vector<pid_t> ProcFs::threads(pid_t pid) const { return numbered_entries(path(pid, "task")); }

std::optional<std::string> ProcFs::read(pid_t pid, std::string_view name) const {
  auto text = read_file(path(pid, name));
  if (!text) return std::nullopt;
  return std::move(*text);
}

std::optional<std::string> ProcFs::link(pid_t pid, std::string_view name) const {
  auto target = read_link(path(pid, name));
  if (!target) return std::nullopt;
  return std::move(*target);
}

std::optional<ProcStat> parse_stat(std::string_view text) {
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == text.npos || close == text.npos || close < open || close + 2 > text.size()) return std::nullopt;

  // proc_pid_stat(5) numbers the fields from 1 and the state is the third.
  const auto fields = split(trim(text.substr(close + 2)), ' ');
  constexpr size_t kState = 0, kParent = 1, kFlags = 6, kThreads = 17, kStart = 19;
  if (fields.size() <= kStart || fields[kState].empty()) return std::nullopt;

  const auto parent = number<pid_t>(fields[kParent]);
  const auto flags = number<uint32_t>(fields[kFlags]);
  const auto threads = number<uint32_t>(fields[kThreads]);
  const auto start = number<uint64_t>(fields[kStart]);
  if (!parent || !flags || !threads || !start) return std::nullopt;

  ProcStat stat;
  stat.comm = text.substr(open + 1, close - open - 1);
  stat.state = fields[kState][0];
  stat.parent = *parent;
  stat.flags = *flags;
  stat.threads = *threads;
  stat.start_ns = *start * tick_ns();
  return stat;
}

std::optional<ProcStatus> parse_status(std::string_view text) {
  ProcStatus status;
  bool has_tgid = false;
  for (const std::string_view line : split(text, '\n')) {  // the kernel escapes newlines in Name:
    const size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const std::string_view key = line.substr(0, colon);
    const auto values = split(trim(line.substr(colon + 1)), '\t');
    if (key == "Tgid") {
      if (const auto tgid = number<pid_t>(values[0])) status.tgid = *tgid, has_tgid = true;
    } else if (key == "Uid") {
      if (const auto uid = number<uid_t>(values[0])) status.uid = *uid;
    } else if (key == "NSpid") {
      for (const std::string_view value : values) {
        if (const auto pid = number<pid_t>(value)) status.ns_pids.push_back(*pid);
      }
    }
  }
  if (!has_tgid) return std::nullopt;
  return status;
}

}  // namespace looptrace
