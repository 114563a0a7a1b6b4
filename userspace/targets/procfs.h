// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace looptrace {

/// Reads /proc. Stateless but for its root, which tests replace; safe to share between threads.
/// What has vanished is std::nullopt or an empty list: a process may end between any two reads.
class ProcFs {
 public:
  explicit ProcFs(std::string root = "/proc") : root_(std::move(root)) {}

  const std::string& root() const { return root_; }
  /// "/proc/PID/NAME"; also right for a thread id, which /proc serves without listing it.
  std::string path(pid_t pid, std::string_view name) const;

  std::vector<pid_t> pids() const;
  std::vector<pid_t> threads(pid_t pid) const;
  std::optional<std::string> read(pid_t pid, std::string_view name) const;
  std::optional<std::string> link(pid_t pid, std::string_view name) const;

 private:
  std::string root_;
};

/// What looptrace uses of /proc/PID/stat.
struct ProcStat {
  std::string comm;
  char state = '?';
  pid_t parent = 0;
  uint32_t flags = 0;  ///< PF_*
  uint32_t threads = 0;
  uint64_t start_ns = 0;  ///< since boot, to the clock tick (10 ms)

  bool is_kernel_thread() const { return flags & 0x00200000; }  // PF_KTHREAD
  /// A zombie with threads left is a process whose main thread alone has ended.
  bool has_ended() const { return (state == 'Z' && threads <= 1) || state == 'X'; }
};

/// The name may hold anything, ") (" and newlines included: it ends at the last parenthesis.
std::optional<ProcStat> parse_stat(std::string_view text);

/// What looptrace uses of /proc/PID/status.
struct ProcStatus {
  pid_t tgid = 0;
  uid_t uid = 0;               ///< real
  std::vector<pid_t> ns_pids;  ///< outermost pid namespace first; the last is what the process calls itself
};
std::optional<ProcStatus> parse_status(std::string_view text);

}  // namespace looptrace
