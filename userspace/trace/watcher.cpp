// SPDX-License-Identifier: Apache-2.0
#include "trace/watcher.h"

#include <algorithm>
#include <chrono>

#include "trace/clock.h"
#include "trace/hurry.h"

namespace looptrace {

namespace {

using std::chrono::nanoseconds;

// A loop is probed at a tenth of the threshold. One that the last probes saw polling soon (it does not
// sleep, but it is not stalled) has all its polls seen by the tracepoints from there on: probes that come and
// go for it 35 times a second cost Node.js 5 % of its requests. Where that is dear (Saturation::is_too_short)
// it is probed at 0.5 only. It is expected to poll at once, and looked at again after 0.5 ms, 1 ms and so on.
constexpr uint64_t kSuspectFraction = 10;
constexpr uint64_t kSaturatedPercent = 50, kSoonNs = 500'000;
// How long the probe stays on for new targets. A loop needs two polls in it to be confirmed.
constexpr uint64_t kDiscoverNs = 200'000'000;
// Attaching the wake-up program soon after it was detached waits for the kernel (8 ms): hold it.
constexpr uint64_t kWakersHoldNs = 5'000'000'000;
// The tracepoints take the kernel a second to detach: a load that comes and goes finds them there.
constexpr uint64_t kHoldNs = 10'000'000'000;

constexpr uint64_t kReportWindowNs = 1'000'000'000;
// An iteration this old that keeps its CPU is probed now and then only: what it would be wrong by is under a
// hundredth.
constexpr uint64_t kOldNs = 30'000'000'000, kProbeNs = 20'000'000, kRestNs = 250'000'000;

/// It is off its CPU for long, where it cannot poll. The kernel tells when it runs again.
bool waits_for_long(const lt_slot& slot, uint64_t now) {
  return !slot.running && (slot.off_reason == LT_OFF_BLOCKED || slot.off_reason == LT_OFF_STOPPED) &&
         now > slot.off_ns && now - slot.off_ns >= LT_LONG_WAIT_NS;
}

}  // namespace

Watcher::Watcher(Engine& engine, uint64_t threshold_ns, OpenDue open_due, std::function<void()> drain)
    : engine_(engine),
      threshold_ns_(threshold_ns),
      open_due_(std::move(open_due)),
      drain_(std::move(drain)),
      loops_(engine.slot_count()),
      answers_(engine.slot_count()) {}

Watcher::~Watcher() { stop(); }

void Watcher::start() {
  thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
}

void Watcher::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  poked_.notify_all();
  thread_.join();
}

void Watcher::poke() {
  {
    std::lock_guard lock(mutex_);
    poke_ = true;
  }
  poked_.notify_one();
}

void Watcher::discover() {
  {
    std::lock_guard lock(mutex_);
    discover_ = true;
    poke_ = true;
  }
  poked_.notify_one();
}

void Watcher::run(std::stop_token stop) {
  hurry_this_thread();
  uint64_t wait_ns = idle_tick_ns();
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      poked_.wait_for(lock, stop, nanoseconds(wait_ns), [&] { return poke_; });
      poke_ = false;
      if (std::exchange(discover_, false)) discover_until_ns_ = monotonic_ns() + kDiscoverNs;
    }
    if (stop.stop_requested()) break;
    wait_ns = look(monotonic_ns());
  }
  engine_.stop_probe();
  engine_.release_hooks();
  (void)engine_.watch_wakers(false);
}

// An iteration that begins right after a look is seen before it is a stall: where it blocks, in time to see
// who ends the wait; where it runs, the timer tick tells of it anyway.
uint64_t Watcher::idle_tick_ns() const {
  return std::clamp<uint64_t>(threshold_ns_ / 10 * 9, 2'000'000, 100'000'000);
}

// Attaching takes 0.15 ms, but up to 20 ms if the probe was detached in the last 20 to 40: the kernel waits
// for an RCU grace period then. To be sure of a stall the probe has to be there at half of the threshold, and
// it is asked for at a tenth of it and a tick. Where the time between does not allow for that wait the probe
// stays for a while: what is suspect once is often suspect again.
uint64_t Watcher::probe_hold_ns() const {
  constexpr uint64_t kAttachNs = 20'000'000, kTickNs = 4'000'000;
  const uint64_t needed = threshold_ns_ / kSuspectFraction + kTickNs + kAttachNs;
  return needed > threshold_ns_ / 2 ? std::min(kAttachNs, needed - threshold_ns_ / 2) * 15 : 0;
}

void Watcher::ask(uint32_t i, uint64_t start_ns, uint64_t mark_ns) {
  Answer& answer = answers_[i];
  LoopWatch& loop = loops_[i];
  if (answer.awaited.load(std::memory_order_acquire)) return;
  const uint64_t switches = engine_.slot(i).switches;
  if (answer.start_ns == start_ns && answer.mark_ns >= mark_ns && loop.asked_switches == switches) return;
  loop.asked_switches = switches;
  answer.awaited.store(true, std::memory_order_release);
  if (open_due_(i, start_ns)) return;
  answer.awaited.store(false, std::memory_order_release);
  if (std::exchange(loop.refused_ns, start_ns) != start_ns) ++refused_;
}

void Watcher::answer(uint32_t slot, uint64_t start_ns, uint64_t mark_ns) {
  if (slot >= answers_.size()) return;
  Answer& answer = answers_[slot];
  answer.start_ns = start_ns;
  answer.mark_ns = mark_ns;
  answer.awaited.store(false, std::memory_order_release);
}

void Watcher::choose_hooks(uint64_t now, bool probe, bool hold) {
  if (hold) hold_until_ns_ = now + kHoldNs;
  if (hold && !engine_.holding() && can_hold_) {
    const auto held = engine_.hold_hooks();
    can_hold_ = held.has_value();  // a kernel without them has the probe
    if (held && *held) return;
  } else if (engine_.holding() && now >= hold_until_ns_) {
    engine_.release_hooks();
  }
  if (engine_.holding()) return;
  if (probe && !engine_.probing()) {
    if (engine_.start_probe()) ++probes_;
  } else if (!probe && engine_.probing() && now >= probe_until_ns_) {
    engine_.stop_probe();
    rested_ns_ = now;
  }
}

uint64_t Watcher::look(uint64_t now) {
  uint64_t next = now + idle_tick_ns();
  bool probe = now < discover_until_ns_;
  bool wakers = false;
  bool suspect = false;
  bool soon = false;
  bool hold = false;
  const auto pulses = engine_.pulses();
  const uint64_t suspect_ns = threshold_ns_ / kSuspectFraction;
  const uint64_t saturated_ns = threshold_ns_ * kSaturatedPercent / 100;
  const uint64_t often = now + std::clamp<uint64_t>(threshold_ns_ * 2 / 5, 2'000'000, 20'000'000);
  const uint64_t hook_since = engine_.hook_since();
  for (uint32_t i = 0; i < pulses.size(); ++i) {
    const uint64_t start = pulses[i];
    if (!start) continue;
    const uint64_t age = now > start ? now - start : 0;
    lt_slot& slot = engine_.slot(i);
    LoopWatch& loop = loops_[i];
    if (slot.generation != loop.generation) {
      loop = {};  // another thread has the slot
      loop.generation = slot.generation;
    }
    loop.saturation.look(now, start, slot.it.began == LT_BEGAN_ENTERED, hook_since, suspect_ns);
    loop.saturation.count(now, engine_.stats(i).iterations, engine_.stats(i).slept, hook_since, suspect_ns);
    const bool saturated = loop.saturation.is_saturated(now);
    hold = hold || (saturated && !loop.saturation.is_too_short(now));
    if (slot.saturated != saturated) slot.saturated = saturated;
    const bool waits = waits_for_long(slot, now);
    if (!waits) next = std::min(next, saturated && age < saturated_ns ? start + saturated_ns : often);
    const bool rests =
        age > kOldNs && (hook_since ? now - hook_since >= kProbeNs : now < rested_ns_ + kRestNs);
    if (!waits && !rests && age >= (saturated ? saturated_ns : suspect_ns)) {
      probe = true;
      soon = soon || saturated;
      const bool exact = hook_since && start >= hook_since;
      if (!saturated && loop.slowness.suspect(now, exact)) probe_until_ns_ = now + probe_hold_ns();
    }
    if (age < suspect_ns) continue;
    suspect = suspect || (!waits && (!saturated || hook_since));
    if (!saturated || age > threshold_ns_) wakers = true;
    uint64_t mark = threshold_ns_;
    while (mark * 10 <= age) mark *= 10;
    if (age >= mark && age - mark < kReportWindowNs) ask(i, start, mark);
    const uint64_t next_mark = age < threshold_ns_ ? mark : mark * 10;
    next = std::min(next, std::max(start + next_mark, now + 1'000'000));
  }
  if (suspect || std::exchange(was_suspect_, suspect)) {
    was_suspect_ = suspect;
    drain_();
  }
  choose_hooks(now, probe, hold);
  // The probe taxes the whole host: looked at again soon.
  if (engine_.probing()) {
    const uint64_t on_ns = now - std::min(now, engine_.hook_since());
    next = std::min(next, now + (soon ? std::clamp<uint64_t>(on_ns, kSoonNs, 20'000'000) : 20'000'000));
  }
  if (wakers) {
    wakers_until_ns_ = now + kWakersHoldNs;
    (void)engine_.watch_wakers(true);
  } else if (now > wakers_until_ns_) {
    (void)engine_.watch_wakers(false);
  }
  return next - now;
}

}  // namespace looptrace
