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
#include "trace/saturation.h"
#include "trace/slowness.h"

namespace looptrace {

/// Looks at the loops' pulses a few times per threshold, in a thread of its own: attaches the poll probe
/// while a loop is suspect, the polls' tracepoints while one is saturated, the wake-up program while one is
/// blocked for long, and tells when the report of an open stall is due (at 1, 10, 100 ... thresholds). All it
/// reads is shared memory: no system call but the timer's while nothing is suspect.
class Watcher {
 public:
  /// `open_due` is called in the watcher's thread with a slot and the start of its iteration, at the looks of
  /// the second after a mark until answer() says that the mark is dealt with: not every stall is certain at
  /// once. It is called once more when the thread has run since, for it may wait for something else then.
  /// There is one question of a slot at a time. False: it could not be asked.
  using OpenDue = std::function<bool(uint32_t slot, uint64_t start_ns)>;
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

  /// To open_due: that iteration is dealt with up to this mark, 0 = not yet. Any thread.
  void answer(uint32_t slot, uint64_t start_ns, uint64_t mark_ns);
  /// Iterations that could not be asked about.
  uint64_t refused() const { return refused_; }

  /// From the next look on. Any thread.
  void set_threshold(uint64_t threshold_ns) { threshold_ns_ = threshold_ns; }

  uint64_t probes() const { return probes_; }

 private:
  struct LoopWatch {
    uint64_t generation = 0;  // of the slot
    Saturation saturation;
    Slowness slowness;
    uint64_t asked_switches = 0;
    uint64_t refused_ns = 0;  // start of the last iteration that could not be asked about
  };
  struct Answer {
    std::atomic<bool> awaited{false};  // the other members are the worker's while it is
    uint64_t start_ns = 0, mark_ns = 0;
  };

  void run(std::stop_token stop);
  uint64_t look(uint64_t now);  ///< returns for how long there is nothing to look at, ns
  void choose_hooks(uint64_t now, bool probe, bool hold);
  void ask(uint32_t slot, uint64_t start_ns, uint64_t mark_ns);
  uint64_t idle_tick_ns() const;
  uint64_t probe_hold_ns() const;

  Engine& engine_;
  std::atomic<uint64_t> threshold_ns_;
  const OpenDue open_due_;
  const std::function<void()> drain_;
  bool was_suspect_ = false;
  std::vector<LoopWatch> loops_;
  std::vector<Answer> answers_;
  std::atomic<uint64_t> refused_{0};
  uint64_t discover_until_ns_ = 0;
  uint64_t rested_ns_ = 0;       // when the probe was last detached
  uint64_t probe_until_ns_ = 0;  // even if nothing needs it any more
  bool can_hold_ = true;
  uint64_t hold_until_ns_ = 0;  // the same of the tracepoints
  uint64_t wakers_until_ns_ = 0;
  std::atomic<uint64_t> probes_{0};
  std::mutex mutex_;
  std::condition_variable_any poked_;
  bool poke_ = false;
  bool discover_ = false;
  std::jthread thread_;
};

}  // namespace looptrace
