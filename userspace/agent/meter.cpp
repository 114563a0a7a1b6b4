// SPDX-License-Identifier: Apache-2.0
#include "agent/meter.h"

#include <cstdlib>
#include <string>

#include "base/files.h"
#include "base/own_usage.h"
#include "trace/tracer.h"

namespace looptrace {
namespace {

constexpr uint64_t kMeasureNs = 250'000'000, kEveryNs = 10'000'000'000;
// What our scheduler hook takes of a context switch, where it cannot be measured: a rough and rather high
// figure.
constexpr double kSwitchNs = 120;

uint64_t context_switches() {
  const auto text = read_file("/proc/stat");
  if (!text) return 0;
  const size_t at = text->find("\nctxt ");
  return at == text->npos ? 0 : std::strtoull(text->c_str() + at + 6, nullptr, 10);
}

bool stats_are_on() {
  const auto text = read_file("/proc/sys/kernel/bpf_stats_enabled");
  return text && trim(*text) == "1";
}

}  // namespace

Meter::Meter() : exact_(stats_are_on()), cpu_ns_(own_cpu_ns()) {}

std::optional<uint64_t> Meter::due_ns() const {
  if (!measuring_) return std::nullopt;
  return began_ns_ + kMeasureNs;
}

// Nanoseconds of BPF programs a nanosecond.
double Meter::bpf_rate(Tracer& tracer, uint64_t now_ns) {
  if (!tracer.attached()) {
    if (std::exchange(measuring_, false)) tracer.measure_bpf(false);
    switches_ns_ = 0;
    return 0;
  }
  if (measuring_ && now_ns >= began_ns_ + kMeasureNs) {
    rate_ =
        static_cast<double>(tracer.bpf_run_ns() - began_run_ns_) / static_cast<double>(now_ns - began_ns_);
    tracer.measure_bpf(false);
    measuring_ = false;
    next_ns_ = now_ns + kEveryNs;
  } else if (!measuring_ && !refused_ && now_ns >= next_ns_) {
    if (tracer.measure_bpf(true)) {
      measuring_ = true;
      began_ns_ = now_ns;
      began_run_ns_ = tracer.bpf_run_ns();
    } else {
      refused_ = true;
    }
  }
  if (refused_) {
    const uint64_t switches = context_switches();
    if (switches_ns_ && now_ns > switches_ns_)
      rate_ =
          static_cast<double>(switches - switches_) * kSwitchNs / static_cast<double>(now_ns - switches_ns_);
    switches_ = switches;
    switches_ns_ = now_ns;
  }
  return rate_;
}

BudgetUse Meter::take(Tracer& tracer, uint64_t now_ns) {
  BudgetUse use;
  use.elapsed_ns = last_ns_ ? now_ns - last_ns_ : 0;
  last_ns_ = now_ns;
  const uint64_t cpu = own_cpu_ns();
  double bpf;
  if (exact_) {
    const uint64_t run = tracer.bpf_run_ns();
    bpf = static_cast<double>(run - last_run_ns_);
    last_run_ns_ = run;
  } else {
    bpf = bpf_rate(tracer, now_ns) * static_cast<double>(use.elapsed_ns);
  }
  use.cpu_ns = cpu - cpu_ns_ + static_cast<uint64_t>(bpf);
  cpu_ns_ = cpu;
  bpf_ns_ += bpf;
  use.ring_peak = tracer.take_ring_peak();
  uint64_t lost = 0;
  for (const auto& [reason, n] : tracer.losses()) {
    if (reason.ends_with("ring_full") || reason.ends_with("queue_full")) lost += n;
  }
  use.lost = lost - last_lost_;
  last_lost_ = lost;
  use.resident_bytes = tracer.memory_bytes();
  return use;
}

}  // namespace looptrace
