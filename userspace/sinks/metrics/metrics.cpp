// SPDX-License-Identifier: Apache-2.0
#include "sinks/metrics/metrics.h"

#include <algorithm>

#include "base/files.h"
#include "record/histogram.h"

namespace looptrace {
namespace {

constexpr size_t kLongestLabel = 128;  // bytes

constexpr uint64_t ms(uint64_t n) { return n * 1'000'000; }

// From a tenth of the default threshold to five minutes.
constexpr std::array kStallBounds = {ms(5),     ms(10),    ms(25),    ms(50),      ms(100),
                                     ms(250),   ms(500),   ms(1000),  ms(2500),    ms(5000),
                                     ms(10000), ms(30000), ms(60000), ms(120'000), ms(300'000)};

// The kernel counts in eight buckets a power of two, so that a power of two begins a bucket, and the bucket
// before it ends one nanosecond below: with that as the bound nothing is put into a wrong bucket.
template <size_t N>
constexpr std::array<uint64_t, N> below_powers(const std::array<unsigned, N>& powers) {
  std::array<uint64_t, N> bounds{};
  for (size_t i = 0; i < N; ++i) bounds[i] = (uint64_t{1} << powers[i]) - 1;
  return bounds;
}
// 66 us to 69 s; the millisecond to the second by factors of two.
constexpr auto kIterationBounds =
    below_powers(std::array<unsigned, 16>{16, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 34, 36});
// 4 us to 1 s.
constexpr auto kWakeupBounds =
    below_powers(std::array<unsigned, 12>{12, 14, 16, 17, 18, 19, 20, 22, 24, 26, 28, 30});

// Those that are there before they happen: increase() does not see a series' first value.
constexpr const char* kUsualLosses[] = {"stall_ring_full",  "stack_ring_full",  "loops_full",
                                        "hook_missed",      "stall_queue_full", "stack_queue_full",
                                        "event_queue_full", "output_full",      "output_failed"};

size_t bucket_of(std::span<const uint64_t> bounds, uint64_t value) {
  return static_cast<size_t>(std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin());
}

// Adds the kernel's buckets. Each lies within one of ours.
void add_counts(BoundedHistogram& histogram, const BucketCounts& add) {
  constexpr HistogramShape kShape;
  const size_t n = std::min(add.counts.size(), kShape.buckets());
  for (size_t i = 0; i < n; ++i) {
    if (add.counts[i]) histogram.counts[bucket_of(histogram.bounds, kShape.upper_bound(i))] += add.counts[i];
  }
  histogram.sum_ns += add.sum_ns;
}

// A label's text: valid UTF-8 with no control characters (Prometheus's parser takes a NUL for the end), not
// long.
std::string label_text(const std::string& text) {
  std::string label = to_utf8(text);
  label.resize(whole_characters(std::string_view(label).substr(0, kLongestLabel)).size());
  std::replace_if(
      label.begin(), label.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return label.empty() ? "unknown" : label;
}

// What runs there: by the agent's rules, else by its own name.
template <typename Record>
const std::string& name_of(const Record& record) {
  return record.service.empty() ? record.process.comm : record.service;
}

}  // namespace

uint64_t BoundedHistogram::count() const {
  uint64_t sum = 0;
  for (const uint64_t n : counts) sum += n;
  return sum;
}

void BoundedHistogram::add(uint64_t value_ns, std::optional<Exemplar> exemplar) {
  const size_t i = bucket_of(bounds, value_ns);
  ++counts[i];
  sum_ns += value_ns;
  if (!exemplar) return;
  exemplars.resize(counts.size());
  exemplars[i] = std::move(exemplar);
}

std::string Metrics::label_of(const std::string& service) {
  std::string label = label_text(service);
  if (label == kOtherServices || state_.services.contains(label)) return label;
  // "other" takes no place of its own: it is there when the cap is met.
  const size_t named = state_.services.size() - state_.services.count(kOtherServices);
  if (named < max_services_ || forget_a_service()) return label;
  ++state_.label_overflow;
  return kOtherServices;
}

// Names come and go over the months that an agent runs. Prometheus takes a series that ends and begins anew.
bool Metrics::forget_a_service() {
  const auto longest =
      std::max_element(state_.services.begin(), state_.services.end(), [](const auto& a, const auto& b) {
        return std::pair(a.second.open == 0, a.second.idle_intervals) <
               std::pair(b.second.open == 0, b.second.idle_intervals);
      });
  if (longest == state_.services.end() || longest->second.open ||
      longest->second.idle_intervals < kForgetAfter)
    return false;
  state_.services.erase(longest);
  return true;
}

ServiceMetrics& Metrics::service(const std::string& label) {
  const auto [place, is_new] = state_.services.try_emplace(label);
  ServiceMetrics& metrics = place->second;
  if (is_new) {
    metrics.stall_duration = BoundedHistogram(kStallBounds);
    metrics.iteration = BoundedHistogram(kIterationBounds);
    metrics.wakeup_delay = BoundedHistogram(kWakeupBounds);
  }
  return metrics;
}

Result<void> Metrics::start(const StartRecord& record) {
  std::lock_guard lock(mutex_);
  ++revision_;
  state_.build = {label_text(record.version), label_text(record.kernel), label_text(record.hook)};
  // Summaries tell of one trace each.
  if (state_.self) dropped_before_ = state_.self->dropped;
  return {};
}

void Metrics::close(const Thread& thread) {
  const auto found = open_.find(thread);
  if (found == open_.end()) return;
  --service(found->second.service).open;
  open_.erase(found);
}

Result<void> Metrics::stall(const Stall& record) {
  std::lock_guard lock(mutex_);
  ++revision_;
  const Thread thread{record.process.pid, record.thread_id};
  const auto known = open_.find(thread);
  if (record.state == StallState::open && known != open_.end() && known->second.id == record.id) {
    known->second.seen = true;
    return {};
  }
  close(thread);
  const std::string label = label_of(name_of(record));
  ServiceMetrics& metrics = service(label);
  if (record.state == StallState::open) {
    open_[thread] = {record.id, label};
    ++metrics.open;
    return {};
  }
  auto& of_cause = metrics.causes[static_cast<size_t>(record.cause)];
  ++of_cause.stalls;
  of_cause.stall_ns += record.duration_ns;
  metrics.stall_duration.add(record.duration_ns, Exemplar{label_text(record.id), record.duration_ns,
                                                          record.time_ns + record.duration_ns});
  return {};
}

Result<void> Metrics::loop(const LoopRecord& record) {
  std::lock_guard lock(mutex_);
  ++revision_;
  if (const auto open = open_.find({record.process.pid, record.thread_id}); open != open_.end())
    open->second.seen = true;
  const std::string label = label_of(name_of(record));
  ServiceMetrics& metrics = service(label);
  metrics.busy_ns += record.busy_ns;
  metrics.idle_ns += record.idle_ns;
  metrics.unconfirmed += record.unconfirmed;
  add_counts(metrics.iteration, record.iteration_counts);
  add_counts(metrics.wakeup_delay, record.wakeup_counts);
  Interval& interval = interval_[label];
  ++interval.loops;
  if (const uint64_t whole = record.busy_ns + record.idle_ns) {
    interval.utilization =
        std::max(interval.utilization, static_cast<double>(record.busy_ns) / static_cast<double>(whole));
  }
  return {};
}

// A loop is reported each interval while it is there, stalled or not. An open stall of one that was not seen
// through a whole interval has ended, and its closed record was lost.
void Metrics::forget_gone() {
  for (auto open = open_.begin(); open != open_.end();) {
    if (std::exchange(open->second.seen, false)) {
      ++open;
    } else {
      --service(open->second.service).open;
      open = open_.erase(open);
    }
  }
}

Result<void> Metrics::summary(const SummaryRecord& record) {
  std::lock_guard lock(mutex_);
  ++revision_;
  last_summary_ = std::chrono::steady_clock::now();
  for (auto& [label, metrics] : state_.services) {
    const auto interval = interval_.find(label);
    metrics.loops = interval == interval_.end() ? 0 : interval->second.loops;
    metrics.utilization = interval == interval_.end() ? 0 : interval->second.utilization;
    metrics.idle_intervals = interval == interval_.end() ? metrics.idle_intervals + 1 : 0;
  }
  interval_.clear();
  forget_gone();
  MetricsState::Self self;
  self.cpu_ns = record.own_cpu_ns;
  self.bpf_ns = record.bpf_run_ns;
  self.resident_bytes = record.resident_bytes;
  self.dropped = dropped_before_;
  for (const char* reason : kUsualLosses) self.dropped.try_emplace(reason, 0);
  for (const auto& [reason, n] : record.dropped) {
    // These two are judgements, not losses: the first has a metric of its own.
    if (reason != "unconfirmed" && reason != "parked_worker") self.dropped[label_text(reason)] += n;
  }
  state_.self = std::move(self);
  return {};
}

Result<void> Metrics::window(const WindowRecord& record) {
  std::lock_guard lock(mutex_);
  ++revision_;
  if (!state_.agent) state_.agent.emplace();
  MetricsState::Agent& agent = *state_.agent;
  ++(record.active ? agent.active_windows : agent.idle_windows);
  agent.active = record.active;
  agent.probability = record.probability;
  agent.bpf_ns += record.bpf_run_ns.value_or(0);
  agent.budget = record.budget;
  agent.budget.level = label_text(record.budget.level);
  agent.budget.reason = record.budget.reason.empty() ? "none" : label_text(record.budget.reason);
  uint64_t named = 0;
  for (const StratumTotals& stratum : record.strata) {
    named += stratum.stalls.kept;
    service(label_of(stratum.service)).sampled += stratum.stalls.kept;
  }
  // The record lists the heaviest strata only.
  if (record.stalls.kept > named) service(kOtherServices).sampled += record.stalls.kept - named;
  return {};
}

void Metrics::reloaded(bool succeeded) {
  std::lock_guard lock(mutex_);
  ++revision_;
  ++(succeeded ? state_.reloads : state_.failed_reloads);
}

MetricsState Metrics::copy() const {
  std::lock_guard lock(mutex_);
  return state_;
}

uint64_t Metrics::revision() const {
  std::lock_guard lock(mutex_);
  return revision_;
}

std::chrono::nanoseconds Metrics::silent_for() const {
  std::lock_guard lock(mutex_);
  return std::chrono::steady_clock::now() - last_summary_;
}

}  // namespace looptrace
