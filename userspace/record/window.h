// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "record/stall.h"

namespace looptrace {

/// Exact counts of one group of a window's stalls, kept or not.
struct StallTotals {
  uint64_t seen = 0, seen_ns = 0;
  uint64_t kept = 0;  ///< stall records that were written
};

/// A service's stalls of one cause: what is sampled apart.
struct StratumTotals {
  std::string service;
  Cause cause = Cause::other;
  StallTotals stalls;
};

/// A fingerprint that had more stalls than records are kept of it.
struct CappedFingerprint {
  std::string fingerprint;
  StallTotals stalls;
};

/// Where the agent stands between its budget and its cost. Levels shed more from top to bottom.
struct BudgetState {
  std::string level =
      "full";          ///< full, no_source_lines, fewer_stacks, no_stacks, higher_threshold, hooks_off
  uint32_t step = 0;   ///< 0 = full
  std::string reason;  ///< why it is not full: "cpu", "ring", "memory", "output"; empty at full
  double limit = 0;    ///< share of one core that may be used
  double used = 0;     ///< ... and that was, BPF programs included
  uint64_t memory_limit_bytes = 0;  ///< 0 = no limit
};

/// looptrace.window/1: one per sampling window of the agent, also of those in which nothing was traced.
struct WindowRecord {
  uint64_t time_ns = 0;  ///< when it was made
  uint64_t number = 0;   ///< of this host's windows; with the host's name and the seed it decides `active`
  uint64_t start_ns = 0, end_ns = 0;  ///< CLOCK_REALTIME; stalls that began in [start, end) belong to it
  bool active = false;
  double probability = 1;    ///< that a window is active
  uint64_t attached_ns = 0;  ///< part of it in which the hooks were attached
  uint64_t threshold_ns = 0;

  StallTotals stalls;
  std::map<std::string, uint64_t> dropped;  ///< seen and not written, by reason; lost before being seen too
  uint64_t cut = 0;                         ///< stalls that had not ended when the hooks were detached
  std::vector<StratumTotals> strata;        ///< most stall time first
  uint64_t strata_dropped = 0;              ///< strata beyond those
  std::vector<CappedFingerprint> capped;    ///< most stalls first

  uint64_t own_cpu_ns = 0;             ///< CPU time of the agent's process since the last window record
  std::optional<uint64_t> bpf_run_ns;  ///< of its BPF programs in the same time
  bool bpf_estimated = false;          ///< ... extrapolated from a part of the time
  uint64_t resident_bytes = 0;
  BudgetState budget;
  uint64_t threads = 0;  ///< loop threads that were known at its end
};

}  // namespace looptrace
