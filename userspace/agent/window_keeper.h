// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "agent/governor.h"
#include "agent/meter.h"
#include "agent/sampling_sink.h"
#include "agent/schedule.h"
#include "base/sd_notify.h"
#include "sinks/queued_lines.h"
#include "trace/conductor.h"

namespace looptrace {

/// How windows are kept.
struct WindowOptions {
  std::string seed, host;
  uint64_t window_ns = 60'000'000'000;
  double probability = 1;
  SampleLimits sample;
  uint64_t drain_ns = 10'000'000'000;  ///< how long stalls that began in a window are waited for after it
  BudgetLimits budget;
  uint64_t threshold_ns = 50'000'000;
  bool source_lines = true;
};

/// The agent's conductor: attaches for active windows, waits at their end for the stalls that began in them,
/// detaches, writes looptrace.window/1; meters what that costs and sheds what is too much. While nobody
/// receives the records, nothing is attached. Lives in the worker.
class WindowKeeper : public Conductor {
 public:
  /// Window records go to `sink`, at the head of whatever there is; sampled stalls come out of `sampling`,
  /// and what is written ends in `output`.
  WindowKeeper(WindowOptions options, Sink& sink, SamplingSink& sampling, QueuedLines& output,
               SdNotify& notify);

  Result<uint64_t> step(Tracer& tracer, uint64_t now_ns) override;
  Result<void> end(Tracer& tracer) override;

  /// From the next window on.
  void replace_options(WindowOptions options) { next_options_ = std::move(options); }
  /// After the present window and its stalls no other one begins, and `done` is called, once. Null: they go
  /// on.
  void stop_after_window(std::function<void()> done) { done_ = std::move(done); }
  /// The hooks were attached, at some time.
  bool has_attached() const { return has_attached_; }

 private:
  struct State {
    Schedule::Window window;
    double probability = 1;
    uint64_t attached_ns = 0;
    uint64_t threshold_ns = 0;
    uint64_t end_monotonic_ns = 0;  ///< once it has ended
    uint64_t cut = 0;
    uint64_t barrier =
        0;  ///< its stalls are all here when the tracer has come to this one; 0 = not asked for
  };
  void begin(uint64_t realtime_ns);
  Result<void> drain(Tracer& tracer, uint64_t now_ns);
  Result<void> keep_attached(Tracer& tracer, uint64_t realtime_ns);
  Result<void> write(Tracer& tracer, State& state);
  void look_at_budget(Tracer& tracer, uint64_t now_ns);
  void apply_level(Tracer& tracer, bool window_begins);
  void account(uint64_t realtime_ns);
  void look_at_output(Tracer& tracer);
  std::map<std::string, uint64_t> losses(Tracer& tracer) const;
  BudgetState budget() const;
  bool off() const { return governor_.level() == BudgetLevel::hooks_off || !output_trouble_.empty(); }

  WindowOptions options_;
  std::optional<WindowOptions> next_options_;
  Sink& sink_;
  SamplingSink& sampling_;
  QueuedLines& output_;
  SdNotify& notify_;
  Schedule schedule_;
  Governor governor_;
  Meter meter_;
  std::optional<State> present_, draining_;
  std::function<void()> done_;
  bool has_attached_ = false;
  std::string output_trouble_;  // why nobody receives what is written; empty: they do
  uint64_t accounted_ns_ = 0;   // CLOCK_REALTIME up to which attached time was booked
  uint64_t last_look_ns_ = 0;
  uint64_t threshold_ns_;
  uint64_t written_cpu_ns_, written_bpf_ns_ = 0;
  std::map<std::string, uint64_t> written_losses_;
};

}  // namespace looptrace
