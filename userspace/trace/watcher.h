// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "bpf/engine.h"

namespace looptrace {

/// Looks at the loops' pulses a few times per threshold, in a thread of its own: attaches the poll probe
/// while a loop is suspect, the wake-up program while one is blocked for long, and tells when the report of
/// an open stall is due (at 1, 10, 100 ... thresholds). All it reads is shared memory: no system call but
/// the timer's while nothing is suspect.
class Watcher {
 public:
  /// `open_due` is called in the watcher's thread with a slot and the start of its iteration, at each look
  /// during the second after a mark: not every stall is certain at once.
  using OpenDue = std::function<void(uint32_t slot, uint64_t start_ns)>;
  /// `drain` asks for the ring to be read now: while a loop is suspect and once after. Otherwise nobody is in
  /// a hurry, and idle loops cost few wake-ups.
  Watcher(Engine& engine, uint64_t threshold_ns, OpenDue open_due, std::function<void()> drain);
  ~Watcher();

  void start();
  void stop();

  /// From the ring: a loop runs late on a CPU / polled while the probe was on. Any thread.
  void poke();
  /// New processes became targets: probe for a while, so that loops which never sleep are found. Any thread.
  void discover();

  uint64_t probes() const { return probes_; }

 private:
  struct LoopWatch {
    uint64_t start_ns = 0;     // of its iteration, when last looked at
    uint64_t resolved_ns = 0;  // when a probe last saw it poll
    uint32_t resolved = 0;     // how often in a row
  };

  void run(std::stop_token stop);
  uint64_t look(uint64_t now);  ///< returns for how long there is nothing to look at, ns
  uint64_t idle_tick_ns() const;

  Engine& engine_;
  const uint64_t threshold_ns_;
  const OpenDue open_due_;
  const std::function<void()> drain_;
  bool was_suspect_ = false;
  std::vector<LoopWatch> loops_;
  uint64_t discover_until_ns_ = 0;
  uint64_t wakers_until_ns_ = 0;
  std::atomic<uint64_t> probes_{0};
  std::mutex mutex_;
  std::condition_variable_any poked_;
  bool poke_ = false;
  bool discover_ = false;
  std::jthread thread_;
};

}  // namespace looptrace
