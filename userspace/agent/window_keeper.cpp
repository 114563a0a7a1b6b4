// SPDX-License-Identifier: Apache-2.0
#include "agent/window_keeper.h"

#include <algorithm>
#include <utility>

#include "base/own_usage.h"
#include "trace/clock.h"
#include "trace/tracer.h"

namespace looptrace {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;
// Attaching takes some ten milliseconds on a busy host: early enough to be there when the window begins.
constexpr uint64_t kLeadNs = 100'000'000;
constexpr uint64_t kDrainLookNs = 20'000'000;
constexpr uint64_t kRaise = 4;  // the higher threshold, in thresholds

}  // namespace

WindowKeeper::WindowKeeper(WindowOptions options, Sink& sink, SamplingSink& sampling, QueuedLines& output,
                           SdNotify& notify)
    : options_(std::move(options)),
      sink_(sink),
      sampling_(sampling),
      output_(output),
      notify_(notify),
      schedule_(options_.seed, options_.host, options_.window_ns, options_.probability),
      governor_(options_.budget),
      threshold_ns_(options_.threshold_ns),
      written_cpu_ns_(own_cpu_ns()),
      written_losses_(output.dropped()) {}

// Books the time since the last call to the windows during which the hooks were attached.
void WindowKeeper::account(uint64_t realtime_ns) {
  const uint64_t from = std::exchange(accounted_ns_, realtime_ns);
  if (!from || !present_) return;
  const Schedule::Window& w = present_->window;
  const uint64_t begin = std::max(from, w.start_ns), end = std::min(realtime_ns, w.end_ns);
  if (end > begin) present_->attached_ns += end - begin;
}

void WindowKeeper::begin(uint64_t realtime_ns) {
  if (next_options_) {
    options_ = std::move(*next_options_);
    next_options_.reset();
    schedule_ = Schedule(options_.seed, options_.host, options_.window_ns, options_.probability);
    governor_.set_limits(options_.budget);
  }
  State& state = present_.emplace(State{});
  state.window = schedule_.at(realtime_ns);
  state.probability = schedule_.probability();
  if (!state.window.active) return;
  const std::string number = std::to_string(state.window.number);
  sampling_.open_window(state.window, options_.sample, hash64(options_.seed, options_.host, "coin" + number),
                        state.probability);
}

Result<uint64_t> WindowKeeper::step(Tracer& tracer, uint64_t now_ns) {
  notify_.watchdog(now_ns);
  const uint64_t realtime = clock_ns(CLOCK_REALTIME);
  if (tracer.attached()) account(realtime);
  if (auto r = output_.state(); !r) return r.error();
  look_at_output(tracer);
  if (now_ns >= last_look_ns_ + kSecondNs || meter_.due_ns().value_or(UINT64_MAX) <= now_ns)
    look_at_budget(tracer, now_ns);

  // A clock that was set back ends a window too: its end may be far away.
  if (present_ && (realtime >= present_->window.end_ns || realtime + kSecondNs < present_->window.start_ns)) {
    const uint64_t late = realtime >= present_->window.end_ns ? realtime - present_->window.end_ns : 0;
    present_->end_monotonic_ns = now_ns - std::min(late, now_ns);
    if (draining_) {  // only if draining takes longer than a window
      tracer.pause();
      if (auto r = write(tracer, *draining_); !r) return r.error();
    }
    draining_ = std::exchange(present_, std::nullopt);
  }
  // Nothing is traced now: whoever comes next writes this window.
  if (done_ && present_ && !present_->window.active) present_.reset();
  if (!present_ && !done_) {
    begin(realtime);
    // This step came late: what passed since the window began is its own.
    if (tracer.attached())
      accounted_ns_ = std::max(tracer.attached_since(), std::min(accounted_ns_, present_->window.start_ns));
    apply_level(tracer, true);
    present_->threshold_ns = threshold_ns_;
  }
  if (draining_) {
    if (auto r = drain(tracer, now_ns); !r) return r.error();
  }
  if (auto r = keep_attached(tracer, realtime); !r) return r.error();
  if (!present_ && !draining_ && done_) std::exchange(done_, nullptr)();

  uint64_t next = now_ns + kSecondNs;
  if (present_) {
    const uint64_t end = present_->window.end_ns;
    for (const uint64_t at : {end, end - kLeadNs}) {
      if (at > realtime) next = std::min(next, now_ns + (at - realtime));
    }
  }
  if (draining_) next = std::min(next, now_ns + kDrainLookNs);
  if (const auto due = meter_.due_ns()) next = std::min(next, *due);
  return next;
}

// Waits for the stalls that began in the window that is over, then writes it.
Result<void> WindowKeeper::drain(Tracer& tracer, uint64_t now_ns) {
  State& state = *draining_;
  if (tracer.attached() && !state.barrier) {
    const bool late = now_ns >= state.end_monotonic_ns + std::min(options_.drain_ns, options_.window_ns / 2);
    if (!late && !off() && state.window.active && tracer.busy_since_before(state.end_monotonic_ns)) return {};
    if (state.window.active) state.cut = tracer.cut_stalls(state.end_monotonic_ns);
    state.barrier = tracer.ask_for_barrier();
  }
  if (tracer.attached() && tracer.barriers() < state.barrier) return {};
  auto written = write(tracer, state);
  draining_.reset();
  return written;
}

Result<void> WindowKeeper::keep_attached(Tracer& tracer, uint64_t realtime_ns) {
  bool wanted = draining_ && tracer.attached();
  if (present_) {
    const Schedule::Window& w = present_->window;
    wanted |= w.active || (realtime_ns + kLeadNs >= w.end_ns && schedule_.window(w.number + 1).active);
  }
  if (off()) wanted = false;
  if (wanted == tracer.attached()) return {};
  if (wanted) {
    if (auto r = tracer.resume(); !r) return r;
    has_attached_ = true;
    accounted_ns_ = tracer.attached_since();
  } else {
    // Off in the midst of an active window: what goes on is cut there.
    if (present_ && present_->window.active) present_->cut += tracer.cut_stalls(monotonic_ns());
    tracer.pause();
    accounted_ns_ = 0;
    if (off() && governor_.reason() == "memory") tracer.release_memory();
  }
  return {};
}

Result<void> WindowKeeper::end(Tracer& tracer) {
  notify_.be_patient();  // until the first step of the trace that may follow
  if (tracer.attached()) {
    account(clock_ns(CLOCK_REALTIME));
    if (draining_ && draining_->window.active && !draining_->barrier)
      draining_->cut += tracer.cut_stalls(draining_->end_monotonic_ns);
    if (present_ && present_->window.active) present_->cut += tracer.cut_stalls(monotonic_ns());
    tracer.pause();
  }
  for (auto* state : {&draining_, &present_}) {
    if (!*state) continue;
    auto written = write(tracer, **state);
    state->reset();
    if (!written) return written;
  }
  return {};
}

Result<void> WindowKeeper::write(Tracer& tracer, State& state) {
  WindowRecord record;
  if (state.window.active) {
    auto outcome = sampling_.close_window(state.window.number);
    if (!outcome) return outcome.error();
    record.stalls = outcome->totals;
    record.strata = std::move(outcome->strata);
    record.strata_dropped = outcome->strata_dropped;
    record.capped = std::move(outcome->capped);
    if (outcome->sampled_out) record.dropped["sampled"] = outcome->sampled_out;
  }
  auto lost = losses(tracer);
  for (const auto& [reason, n] : lost) {
    if (n > written_losses_[reason]) record.dropped[reason] = n - written_losses_[reason];
  }
  written_losses_ = std::move(lost);
  record.time_ns = clock_ns(CLOCK_REALTIME);
  record.number = state.window.number;
  record.start_ns = state.window.start_ns;
  record.end_ns = state.window.end_ns;
  record.active = state.window.active;
  record.probability = state.probability;
  record.attached_ns = state.window.active ? state.attached_ns : 0;
  record.threshold_ns = state.threshold_ns;
  record.cut = state.cut;
  const uint64_t cpu = own_cpu_ns();
  record.own_cpu_ns = cpu - std::exchange(written_cpu_ns_, cpu);
  record.bpf_run_ns = meter_.bpf_ns() - written_bpf_ns_;
  written_bpf_ns_ = meter_.bpf_ns();
  record.bpf_estimated = meter_.estimated();
  record.resident_bytes = tracer.memory_bytes();
  record.budget = budget();
  record.threads = tracer.loops_known();
  return sink_.window(record);
}

std::map<std::string, uint64_t> WindowKeeper::losses(Tracer& tracer) const {
  auto lost = tracer.losses();
  lost.merge(output_.dropped());
  return lost;
}

BudgetState WindowKeeper::budget() const {
  const bool silent = !output_trouble_.empty();
  const BudgetLevel level = silent ? BudgetLevel::hooks_off : governor_.level();
  return {budget_level_name(level),
          static_cast<uint32_t>(level),
          silent ? "output" : governor_.reason(),
          governor_.limits().cpu,
          governor_.used(),
          governor_.limits().memory_bytes};
}

// What nobody receives is not worth its cost: hooks off at once, and on again when all has been read.
void WindowKeeper::look_at_output(Tracer& tracer) {
  std::string trouble = output_.trouble();
  if (trouble.empty() == output_trouble_.empty()) return;
  output_trouble_ = std::move(trouble);
  if (output_trouble_.empty()) {
    tracer.warn("output_back", "records are received again");
    notify_.status("records are received again");
  } else {
    const std::string what = output_trouble_ + "; nothing is traced meanwhile";
    tracer.warn("output_stuck", what);
    notify_.status(what);
  }
}

void WindowKeeper::look_at_budget(Tracer& tracer, uint64_t now_ns) {
  last_look_ns_ = now_ns;
  const BudgetLevel before = governor_.level();
  if (!governor_.look(meter_.take(tracer, now_ns))) return;
  const BudgetLevel level = governor_.level();
  apply_level(tracer, false);
  if (level > before) {
    if (governor_.reason() == "memory") tracer.release_memory();
    tracer.warn("budget_shed",
                std::string("now at ") + budget_level_name(level) + ", for " + governor_.reason());
  } else {
    tracer.warn("budget_recovered", std::string("now at ") + budget_level_name(level));
  }
  notify_.status(std::string("budget level ") + budget_level_name(level));
}

// The threshold is raised at once, and lowered only where a window begins: within a window it may only grow.
void WindowKeeper::apply_level(Tracer& tracer, bool window_begins) {
  const BudgetLevel level = governor_.level();
  tracer.set_source_lines(options_.source_lines && level < BudgetLevel::no_source_lines);
  tracer.set_captures(level >= BudgetLevel::no_stacks      ? Engine::Captures::none
                      : level >= BudgetLevel::fewer_stacks ? Engine::Captures::few
                                                           : Engine::Captures::all);
  const uint64_t wanted = options_.threshold_ns * (level >= BudgetLevel::higher_threshold ? kRaise : 1);
  if (wanted == threshold_ns_ || (wanted < threshold_ns_ && !window_begins)) return;
  threshold_ns_ = wanted;
  tracer.set_threshold(wanted);
  if (present_) present_->threshold_ns = std::max(present_->threshold_ns, wanted);
}

}  // namespace looptrace
