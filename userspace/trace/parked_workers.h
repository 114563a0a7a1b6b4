// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "bpf/engine.h"
#include "stacks/user_unwinder.h"
#include "trace/processes.h"

namespace looptrace {

/// True if both threads are in the same call of the same function, and one went on from there to poll, the
/// other to wait: their stacks have the same return addresses from the thread's start up to there, and the
/// call before the last of them is a direct one. A call through a pointer may have been of two functions, as
/// when a pool starts each of its threads with a function of its own. Stacks leaf first; `read` reads code.
bool chose_in_same_call(std::span<const uint64_t> polling, std::span<const uint64_t> waiting,
                        const ReadWord& read);

/// How a loop of the process that is known polls, by its thread id; null if it is not known.
using KnownLoop = std::function<const lt_poll_call*(uint32_t tid)>;

/// Those of a process's sleeping threads that wait in a futex where a loop that is known, and bears the same
/// name, polls now. Of workers that share an epoll descriptor (tokio) one polls at a time, and one that never
/// gets the turn would never be known for a loop.
std::vector<Engine::Parked> find_parked_workers(const TracedProcess& process,
                                                std::span<const lt_waiting> threads, const KnownLoop& known);

/// When to look for them: as a loop is found, and a few times more, since one can be found by where it waits
/// only.
class ParkedWorkersDue {
 public:
  void loop_found(uint32_t tgid, uint64_t now_ns) { due_[tgid] = {now_ns, kLooks}; }
  /// A process to look at.
  std::optional<uint32_t> next(uint64_t now_ns);

 private:
  static constexpr uint32_t kLooks = 5;
  static constexpr uint64_t kEveryNs = 1'000'000'000;
  struct Due {
    uint64_t at_ns;
    uint32_t looks;
  };
  std::map<uint32_t, Due> due_;
};

}  // namespace looptrace
