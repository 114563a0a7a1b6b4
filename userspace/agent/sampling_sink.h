// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <optional>

#include "agent/schedule.h"
#include "agent/window_sample.h"
#include "sinks/sink.h"

namespace looptrace {

/// Holds the stalls of a window until it is over, and hands a weighted sample of them on to another sink,
/// which outlives it. A stall belongs to the window in which it began; one that began in no window that is
/// open here (before attaching, or while an older window's stalls were waited for) goes no further.
/// Everything else passes.
///
/// Of stalls that go on for ten thresholds and more, the open records pass at once: somebody may be waiting
/// for them. They are bounded a window, and stand for no weight of their own, since closed records are what
/// counts.
class SamplingSink : public Sink {
 public:
  explicit SamplingSink(Sink& next) : next_(next) {}

  void open_window(const Schedule::Window& window, SampleLimits limits, uint64_t coin_seed,
                   double probability);
  /// Writes the window's stalls, each with its weight. The outcome's own list of them is empty.
  Result<WindowSample::Outcome> close_window(uint64_t number);

  Result<void> start(const StartRecord& record) override { return next_.start(record); }
  Result<void> stall(const Stall& record) override;
  Result<void> loop(const LoopRecord& record) override { return next_.loop(record); }
  Result<void> window(const WindowRecord& record) override { return next_.window(record); }
  Result<void> warning(const WarningRecord& record) override { return next_.warning(record); }
  Result<void> summary(const SummaryRecord& record) override { return next_.summary(record); }

 private:
  struct OpenWindow {
    Schedule::Window window;
    double probability;
    WindowSample sample;
    size_t open_records = 0;
  };
  OpenWindow* window_at(uint64_t time_ns);

  Sink& next_;
  std::deque<OpenWindow> windows_;  // two at most: the present one, and one whose stalls are waited for
};

}  // namespace looptrace
