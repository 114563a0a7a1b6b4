// SPDX-License-Identifier: Apache-2.0
#include "trace/lone_poll.h"

#include <poll.h>

#include "arch.h"
#include "loop_identity.h"
#include "record/cause.h"
#include "runtimes/remote_memory.h"
#include "targets/fd_target.h"
#include "trace/off_cpu_place.h"

namespace looptrace {

namespace {

/// The one descriptor of the poll that the thread sleeps in, by the call's own arguments.
std::optional<int> polled_fd(pid_t pid, const OffCpuPlace& place) {
  const uint64_t first = place.args[0], second = place.args[1];
  const RemoteMemory memory(pid);
  switch (lt_poll_kind(place.nr, 0, 0)) {
    case LT_POLL_POLL: {
      const auto entry = memory.get<pollfd>(first);
      return entry && second == 1 ? std::optional(entry->fd) : std::nullopt;
    }
    case LT_POLL_SELECT: {  // the set to read from; one word is as far as a client's descriptors go
      const auto word = memory.get<uint64_t>(second);
      if (!word || !first || first > 64 || __builtin_popcountll(*word) != 1) return std::nullopt;
      return __builtin_ctzll(*word);
    }
    default:
      return std::nullopt;
  }
}

bool is_terminal(const WaitTarget& target) {
  return target.kind == "device" && (target.path.starts_with("/dev/pts/") ||
                                     target.path.starts_with("/dev/tty") || target.path == "/dev/console");
}

}  // namespace

std::optional<LonePoll> look_at_lone_poll(const ProcFs& procfs, const lt_slot& live) {
  const uint64_t switches = __atomic_load_n(&live.switches, __ATOMIC_ACQUIRE);
  if (live.phase != LT_PHASE_IDLE || !lt_client_like(&live.loop.call)) return std::nullopt;
  const auto pid = static_cast<pid_t>(live.tgid);
  const auto place = off_cpu_place(procfs, pid, static_cast<pid_t>(live.tid));
  const auto fd = place ? polled_fd(pid, *place) : std::nullopt;
  if (!fd) return std::nullopt;
  const auto target = resolve_fd(procfs, pid, *fd);
  // Still the same sleep: then the set and the descriptor were this poll's.
  if (!target || __atomic_load_n(&live.switches, __ATOMIC_ACQUIRE) != switches) return std::nullopt;
  const std::string what = describe_target(*target);
  if (target->connected)
    return LonePoll{"its poll is on one connection, " + what + ": a synchronous client's"};
  if (is_terminal(*target))
    return LonePoll{"its poll is on a terminal, " + what + ": an interactive program's"};
  return LonePoll{};
}

}  // namespace looptrace
