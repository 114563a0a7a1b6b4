// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "agent/governor.h"

namespace looptrace {

class Tracer;

/// What the agent costs: its process's CPU time, its BPF programs' run time, its memory.
///
/// The kernel measures the run time of BPF programs only while somebody asks for it, and that costs every
/// program of the host some tens of nanoseconds a run. So it is asked for during a quarter of a second in
/// ten, and the rate stands for the time between. Where it may not be asked for (that takes CAP_SYS_ADMIN),
/// the rate is worked out from the host's context switches. If kernel.bpf_stats_enabled is on anyway, it is
/// exact.
class Meter {
 public:
  Meter();

  /// Since the last call. Call about once a second, in the worker.
  BudgetUse take(Tracer& tracer, uint64_t now_ns);
  /// When it wants to be called to end a measurement; nothing if none goes on.
  std::optional<uint64_t> due_ns() const;

  uint64_t cpu_ns() const { return cpu_ns_; }                         ///< of the process, since it began
  uint64_t bpf_ns() const { return static_cast<uint64_t>(bpf_ns_); }  ///< since the meter began
  bool estimated() const { return !exact_; }

 private:
  double bpf_rate(Tracer& tracer, uint64_t now_ns);

  bool exact_;
  uint64_t last_ns_ = 0;
  uint64_t cpu_ns_ = 0;
  double bpf_ns_ = 0, rate_ = 0;
  uint64_t last_run_ns_ = 0;
  uint64_t last_lost_ = 0;
  // a measurement
  bool refused_ = false, measuring_ = false;
  uint64_t began_ns_ = 0, began_run_ns_ = 0, next_ns_ = 0;
  uint64_t switches_ = 0, switches_ns_ = 0;
};

}  // namespace looptrace
