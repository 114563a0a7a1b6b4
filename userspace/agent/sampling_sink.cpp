// SPDX-License-Identifier: Apache-2.0
#include "agent/sampling_sink.h"

#include <algorithm>

namespace looptrace {
namespace {

constexpr uint64_t kLongStall = 10;  // thresholds
constexpr size_t kOpenRecords = 16;  // of a window

}  // namespace

void SamplingSink::open_window(const Schedule::Window& window, SampleLimits limits, uint64_t coin_seed,
                               double probability) {
  windows_.push_back({window, probability, WindowSample(limits, coin_seed), 0});
}

SamplingSink::OpenWindow* SamplingSink::window_at(uint64_t time_ns) {
  for (OpenWindow& open : windows_) {
    if (time_ns >= open.window.start_ns && time_ns < open.window.end_ns) return &open;
  }
  return nullptr;
}

Result<void> SamplingSink::stall(const Stall& record) {
  OpenWindow* open = window_at(record.time_ns);
  if (!open) return {};
  if (record.state == StallState::closed) {
    open->sample.add(record);
    return {};
  }
  if (record.duration_ns < kLongStall * record.threshold_ns || open->open_records >= kOpenRecords) return {};
  ++open->open_records;
  Stall sampled = record;
  sampled.sample = SampleInfo{open->window.number, open->probability};
  return next_.stall(sampled);
}

Result<WindowSample::Outcome> SamplingSink::close_window(uint64_t number) {
  const auto found = std::find_if(windows_.begin(), windows_.end(),
                                  [&](const OpenWindow& open) { return open.window.number == number; });
  if (found == windows_.end()) return WindowSample::Outcome{};
  WindowSample::Outcome outcome = found->sample.take();
  const SampleInfo info{number, found->probability};
  windows_.erase(found);
  for (Stall& stall : outcome.stalls) {
    stall.sample_weight /= info.probability;
    stall.sample = info;
    if (auto r = next_.stall(stall); !r) return r.error();
  }
  outcome.stalls.clear();
  return outcome;
}

}  // namespace looptrace
