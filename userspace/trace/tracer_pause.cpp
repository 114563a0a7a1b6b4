// SPDX-License-Identifier: Apache-2.0
// The parts of the tracer that a conductor acts through: detaching for a while, and giving up what goes on.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/own_usage.h"
#include "trace/clock.h"
#include "trace/tracer.h"

namespace looptrace {

uint64_t Tracer::until_next_step() const {
  const uint64_t now = monotonic_ns();
  if (!config_.conductor || next_step_ns_ >= now + 500'000'000) return 500;
  return next_step_ns_ > now ? (next_step_ns_ - now + 999'999) / 1'000'000 : 0;
}

void Tracer::conduct(bool last) {
  if (failure_) {
    pause();
  } else if (last) {
    if (!std::exchange(conducted_, true)) check(config_.conductor->end(*this));
  } else if (auto next = config_.conductor->step(*this, monotonic_ns())) {
    next_step_ns_ = *next;
  } else {
    check(next.error());
  }
}

void Tracer::stop() { end_wanted_.send(); }

uint64_t Tracer::ask_for_barrier() {
  const uint64_t number = ++barrier_asked_;
  drain_wanted_.send();
  return number;
}

void Tracer::pause() {
  if (!engine_->attached()) return;
  watcher_->stop();
  engine_->detach();
  stop_reader();
  for (const Message& m : queue_.take(std::chrono::milliseconds(0))) {
    if (!failure_) handle(m);
  }
  loop_records_->end(loops_, monotonic_ns());
  fill_summary();
}

Result<void> Tracer::resume() {
  if (engine_->attached()) return {};
  if (auto r = engine_->attach(); !r) return r;
  if (auto r = targets_->take(); !r) return r;
  if (auto r = engine_->find_sleepers(); !r) return r;
  processes_->load_again();
  attached_since_ = clock_ns(CLOCK_REALTIME);
  forget_gone();
  loop_records_->go_on(loops_, monotonic_ns());
  engine_->consume([this](std::span<const std::byte> bytes) { handle_record(bytes); });
  start_threads();
  return {};
}

void Tracer::forget_gone() {
  for (uint32_t i = 0; i < loops_.size(); ++i) {
    lt_slot& slot = engine_->slot(i);
    if (!(slot.generation & 1) || engine_->was_counted(i)) continue;
    ++slot.generation;
    LoopState& loop = loops_[i];
    if (loop.tid && loop.generation + 1 == slot.generation) {
      end_loop(loop, slot.generation);
    } else {
      loop = LoopState{};
      loop.generation = slot.generation;
      engine_->free_slot(i);
    }
  }
}

bool Tracer::busy_since_before(uint64_t monotonic_ns) const {
  const auto pulses = engine_->pulses();
  return std::any_of(loops_.begin(), loops_.end(), [&](const LoopState& loop) {
    if (!loop.tid || loop.silent()) return false;
    const uint64_t start = pulses[loop.slot];
    return start && start < monotonic_ns && loop.cut_seq != engine_->slot(loop.slot).it.seq;
  });
}

uint64_t Tracer::cut_stalls(uint64_t began_before_ns) { return stalls_->cut(loops_, began_before_ns); }

void Tracer::set_threshold(uint64_t threshold_ns) {
  config_.engine.threshold_ns = threshold_ns;
  engine_->set_threshold(threshold_ns);
  watcher_->set_threshold(threshold_ns);
  assembler_->set_threshold(threshold_ns);
  stalls_->set_threshold(threshold_ns);
}

void Tracer::set_captures(Engine::Captures captures) {
  engine_->set_captures(captures);
  processes_->follow_made_code(config_.engine.stacks && captures != Engine::Captures::none);
}

void Tracer::release_memory() {
  for (const LoopState& loop : loops_) {
    if (loop.tid) symbolizer_->forget(static_cast<pid_t>(loop.tgid));
  }
  symbolizer_->drop_cache();
  processes_->drop_memory(!engine_->attached());
  malloc_trim(0);
}

uint64_t Tracer::memory_bytes() const {
  const uint64_t resident = own_resident_bytes();
  return resident - std::min(resident, engine_->mapped_bytes()) + engine_->map_bytes();
}

uint64_t Tracer::loops_known() const {
  return static_cast<uint64_t>(std::count_if(loops_.begin(), loops_.end(), [&](const LoopState& loop) {
    return loop.tid && !loop.silent() && engine_->slot(loop.slot).confirmed;
  }));
}

}  // namespace looptrace
