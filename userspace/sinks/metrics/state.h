// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "record/stall.h"
#include "record/window.h"

namespace looptrace {

/// One observation that a bucket can show: which stall it was.
struct Exemplar {
  std::string stall_id;
  uint64_t value_ns = 0;
  uint64_t time_ns = 0;  ///< CLOCK_REALTIME
};

/// Counts by upper bounds, which belong to their bucket as Prometheus's `le` does. Times are nanoseconds.
struct BoundedHistogram {
  BoundedHistogram() = default;
  explicit BoundedHistogram(std::span<const uint64_t> upper_bounds)
      : bounds(upper_bounds), counts(upper_bounds.size() + 1) {}

  std::span<const uint64_t> bounds;                ///< ascending, of static storage
  std::vector<uint64_t> counts;                    ///< one a bound, then those above all bounds
  std::vector<std::optional<Exemplar>> exemplars;  ///< as counts, or none
  uint64_t sum_ns = 0;

  uint64_t count() const;
  void add(uint64_t value_ns, std::optional<Exemplar> exemplar);
};

constexpr size_t kCauses = static_cast<size_t>(Cause::other) + 1;

/// All that is counted of one service.
struct ServiceMetrics {
  struct OfCause {
    uint64_t stalls = 0, stall_ns = 0;
  };
  std::array<OfCause, kCauses> causes{};
  BoundedHistogram stall_duration, iteration, wakeup_delay;
  uint64_t unconfirmed = 0;
  uint64_t sampled = 0;  ///< written by the agent, of its windows that are over
  uint64_t open = 0;
  uint64_t busy_ns = 0, idle_ns = 0;
  uint64_t loops = 0;           ///< in the last interval
  double utilization = 0;       ///< of the busiest of them
  uint64_t idle_intervals = 0;  ///< since it last had one
};

/// All metrics at one moment; a plain copy, so that writing them out holds up nobody.
struct MetricsState {
  struct Build {
    std::string version, kernel, hook;
  };
  struct Self {  ///< of the last summary
    uint64_t cpu_ns = 0, resident_bytes = 0;
    std::optional<uint64_t> bpf_ns;
    std::map<std::string, uint64_t> dropped;
  };
  struct Agent {  ///< what only window records tell
    uint64_t active_windows = 0, idle_windows = 0;
    bool active = false;
    double probability = 1;
    uint64_t bpf_ns = 0;
    BudgetState budget;
  };
  std::optional<Build> build;
  std::optional<Self> self;
  std::optional<Agent> agent;
  uint64_t reloads = 0, failed_reloads = 0;  ///< of the agent's configuration
  std::map<std::string, ServiceMetrics> services;
  uint64_t label_overflow = 0;
};

}  // namespace looptrace
