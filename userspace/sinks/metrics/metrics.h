// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "sinks/metrics/state.h"
#include "sinks/tee.h"

namespace looptrace {

/// Counts what the records tell, by service. It wants all records, before any sampling: its counters are
/// exact. Stalls count when they close. What loop records tell arrives once an interval, what the summary
/// tells too.
///
/// Labels are bounded: of `max_services` services each has its own, the rest share "other" and are counted.
/// One thread calls the sink; any thread may take a copy.
class Metrics : public SideSink {
 public:
  static constexpr size_t kMaxServices = 200;
  static constexpr const char* kOtherServices = "other";
  /// One without loops for so many intervals (an hour, of ten seconds each) makes way for a new one.
  static constexpr uint64_t kForgetAfter = 360;

  explicit Metrics(size_t max_services = kMaxServices) : max_services_(max_services) {}

  const char* name() const override { return "metrics"; }
  Result<void> start(const StartRecord& record) override;
  Result<void> stall(const Stall& record) override;
  Result<void> loop(const LoopRecord& record) override;
  Result<void> window(const WindowRecord& record) override;
  Result<void> warning(const WarningRecord&) override { return {}; }
  Result<void> summary(const SummaryRecord& record) override;

  /// The agent has read its configuration anew, or could not.
  void reloaded(bool succeeded);

  MetricsState copy() const;
  /// Changes with the state: what was written out of the same revision is still true.
  uint64_t revision() const;
  /// Since the last summary, or since construction: a pipeline that is stuck tells nothing anymore.
  std::chrono::nanoseconds silent_for() const;

 private:
  using Thread = std::pair<uint32_t, uint32_t>;  // process id, thread id
  struct Open {
    std::string id, service;
    bool seen = true;  // in this interval
  };
  struct ThreadHash {
    size_t operator()(const Thread& t) const { return (size_t{t.first} << 32) ^ t.second; }
  };

  ServiceMetrics& service(const std::string& label);
  std::string label_of(const std::string& service);
  bool forget_a_service();
  void close(const Thread& thread);
  void forget_gone();

  const size_t max_services_;
  mutable std::mutex mutex_;
  MetricsState state_;
  std::map<std::string, uint64_t> dropped_before_;  // in the traces before this one
  uint64_t revision_ = 0;
  std::chrono::steady_clock::time_point last_summary_ = std::chrono::steady_clock::now();
  std::unordered_map<Thread, Open, ThreadHash> open_;  // a thread runs one iteration at a time
  struct Interval {
    uint64_t loops = 0;
    double utilization = 0;
  };
  std::unordered_map<std::string, Interval> interval_;  // by label, since the last summary
};

}  // namespace looptrace
