// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "record/stall.h"

namespace looptrace {

/// What one check of the kernel, the privileges or a target found.
struct Capability {
  std::string name;  ///< "btf", "task_storage", "fentry", ...
  bool available = false;
  bool required = false;
  std::string detail;  ///< what was seen
  std::string mend;    ///< what to do; empty if available
};

/// Native stacks that were taken, and those that do not reach the thread's start, by what ended the walk
/// ("read_fault": stack memory was not resident).
struct StackCounts {
  uint64_t taken = 0;
  std::map<std::string, uint64_t> incomplete;
};

/// looptrace.start/1
struct StartRecord {
  uint64_t time_ns = 0;
  std::string version, kernel;
  std::vector<std::string> targets;  ///< as given: "comm=server"
  uint64_t threshold_ns = 0;
  std::string hook;  ///< "fentry", "auto", "always", "never"
  std::vector<Capability> features;
  std::string stalls = "all";  ///< which get a record; "windows": those that the agent samples
  unsigned sample_hz = 0;      ///< on-CPU samples of late loops per second and CPU; 0 = none
};

/// Percentiles of an exact histogram (log-linear buckets; upper bound of the bucket, at most 12.5 % wide).
struct Percentiles {
  uint64_t p50 = 0, p90 = 0, p99 = 0, p999 = 0, max = 0;
};

/// The exact counts behind Percentiles, in the buckets of a default HistogramShape (record/histogram.h).
struct BucketCounts {
  std::vector<uint32_t> counts;  ///< empty: nothing was counted
  uint64_t sum_ns = 0;           ///< of all that was counted
};

/// looptrace.loop/1: one per loop and interval.
struct LoopRecord {
  uint64_t time_ns = 0;  ///< end of the interval
  uint64_t interval_ns = 0;
  uint64_t hooked_ns = 0;  ///< part of the interval in which every poll was seen
  ProcessInfo process;
  uint32_t thread_id = 0;
  std::string thread_name;
  ContainerInfo container;
  std::string service;  ///< as in Stall
  LoopInfo loop;
  uint64_t iterations = 0;  ///< while hooked
  uint64_t busy_ns = 0, idle_ns = 0;
  std::optional<Percentiles> iteration;  ///< absent where hooked_ns is 0
  std::optional<Percentiles> wakeup_delay;
  BucketCounts iteration_counts, wakeup_counts;  ///< for sinks that sum over loops; in no record
  uint64_t stalls = 0, stall_ns = 0;
  uint64_t unconfirmed = 0;  ///< iterations over the threshold that could not be told from several short ones
  StackCounts stacks;        ///< in the interval
};

/// looptrace.warning/1
struct WarningRecord {
  uint64_t time_ns = 0;
  std::string code;  ///< "ring_full", "loops_full", "python_unknown_version", ...
  std::string message;
};

/// looptrace.summary/1
struct SummaryRecord {
  uint64_t time_ns = 0;
  uint64_t elapsed_ns = 0;
  uint64_t loops = 0;
  uint64_t stalls_seen = 0, stalls_emitted = 0;
  std::map<std::string, uint64_t> dropped;  ///< by reason; only reasons that happened
  uint64_t stacks_skipped =
      0;  ///< spare stacks not taken or not kept: the budget was spent; no record is lost
  StackCounts stacks;
  uint64_t switches_healed = 0;  ///< context switches that the kernel told us of only by its own stamps
  bool final = true;             ///< the run is over; else one of those at each interval
  uint64_t own_cpu_ns = 0;
  std::optional<uint64_t> bpf_run_ns;  ///< absent unless kernel.bpf_stats_enabled is on
  uint64_t resident_bytes = 0;
};

/// One line of `looptrace list`.
struct LoopListing {
  ProcessInfo process;
  uint32_t thread_id = 0;
  std::string thread_name;
  LoopInfo loop;
  double iterations_per_second = 0;
  double utilization = 0;  ///< busy / (busy + idle)
};

}  // namespace looptrace
