// SPDX-License-Identifier: Apache-2.0
#include "trace/tracer.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "arch.h"
#include "base/files.h"
#include "base/host.h"
#include "ledger.h"
#include "loop_identity.h"
#include "record/histogram.h"
#include "stacks/elf_object.h"
#include "targets/cgroup.h"
#include "targets/fd_target.h"
#include "targets/scan.h"
#include "trace/blocked_stack.h"
#include "trace/clock.h"
#include "trace/hurry.h"

namespace looptrace {

namespace {

// Records that ask for no wake-up are read this late at most, if the watcher has no reason to ask sooner.
constexpr int kIdleDrainMs = 500;
constexpr int kObserveMs = 25;
// What waits for the worker at most. A slow reader of our output fills it; then records are dropped, counted.
constexpr size_t kQueueBytes = 24u << 20;
constexpr size_t kPreparedProcesses = 16;
constexpr uint64_t kHousekeepingNs = 1'000'000'000;
// A JIT compiler that has warmed up compiles little; a look at a small JVM takes 10 to 30 ms.
constexpr uint64_t kCodeAgeNs = 10'000'000'000;
// Looking at every process takes milliseconds: not more often than this.
constexpr uint64_t kRescanNs = 1'000'000'000;
constexpr HistogramShape kShape;  // the records' default
static_assert(kShape.min_bits == LT_HIST_MIN_BITS && kShape.sub_bits == LT_HIST_SUB_BITS &&
              kShape.max_bits == LT_HIST_MAX_BITS);

/// A copy of a slot that the kernel did not switch during the copying; nothing if it would not hold still.
std::optional<lt_slot> snapshot(const lt_slot& live) {
  for (int tries = 0; tries < 4; ++tries) {
    const uint64_t before = __atomic_load_n(&live.switches, __ATOMIC_ACQUIRE);
    lt_slot copy;
    std::memcpy(&copy, &live, sizeof copy);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&live.switches, __ATOMIC_ACQUIRE) == before) return copy;
  }
  return std::nullopt;
}

/// Books the present state up to `now` in a copy, as the kernel will when it ends. How much of a segment was
/// spent in the run queue is not known before then: it counts as blocked.
void book_until(lt_slot& s, uint64_t now, uint64_t hook_since) {
  const auto book_off = [&](uint64_t until) {
    if (const lt_off_segment seg = lt_switch_in(&s, until, 0); seg.blocked_ns)
      lt_book_wait(&s, seg.blocked_ns);
  };
  if (s.unsettled == LT_UNSETTLED_WAIT) book_off(s.in_ns);
  if (s.running) {
    lt_book_running(&s, now, hook_since);
  } else {
    s.wake_pid = 0;
    s.in_target.kind = LT_TARGET_NONE;
    s.in_target.fd = s.off_fd;
    book_off(now);
    lt_keep_stretch(&s.it, now);
  }
}

struct BusyIdle {
  uint64_t busy_ns, idle_ns;
};

/// Since the slot was taken, the present state included up to `now`.
BusyIdle busy_and_idle(const lt_stats& stats, const lt_slot& s, uint64_t now) {
  BusyIdle sum{stats.busy_ns, stats.idle_ns};
  if (s.phase == LT_PHASE_BUSY && now > s.it.start_ns) sum.busy_ns += now - s.it.start_ns;
  if (s.phase == LT_PHASE_IDLE && now > s.poll_ns) sum.idle_ns += now - s.poll_ns;
  return sum;
}

/// A poll that recurs; or that slept through all of our watching, if it is not what a waiting client does.
bool looks_like_loop(const lt_slot& s) {
  if (s.confirmed) return true;
  return s.loop.seen && s.phase == LT_PHASE_IDLE && !lt_client_like(&s.loop.call);
}

/// The walk wanted what is not there now and may be read from outside: tables, or memory of the target.
bool lacks_memory(uint32_t walk_status) {
  return walk_status == LT_UNWIND_OFF || walk_status == LT_UNWIND_READ_FAULT ||
         walk_status == kInterpreterFault;
}

// While the objects that the frames point to are where they were.
void name_javascript(RawCapture& c, const TracedProcess* process) {
  if (!process || !process->runtime) {
    c.v8.clear();
    return;
  }
  const bool interrupted = c.head.reason == LT_CAPTURE_SAMPLE && c.head.nr < 0;
  c.javascript = process->runtime->name_frames({c.user, c.v8, interrupted, c.head.r9, c.head.r15});
}

}  // namespace

Tracer::Tracer(TraceConfig config, Sink& sink)
    : config_(std::move(config)), sink_(sink), queue_(kQueueBytes) {
  const std::string host = config_.host_name.empty() ? read_host_info().name : config_.host_name;
  char run[16];
  std::snprintf(run, sizeof run, "%04x",
                static_cast<unsigned>((monotonic_ns() ^ static_cast<uint64_t>(getpid()) << 7) & 0xffff));
  id_prefix_ = (host.empty() ? "host" : host) + "-" + run + "-";
}

Tracer::~Tracer() {
  if (watcher_) watcher_->stop();
  stop_reader();
  if (worker_.joinable()) {
    worker_.request_stop();
    queue_.stop();
    worker_.join();
  }
}

std::string Tracer::next_id() { return id_prefix_ + std::to_string(++ids_); }

Result<void> Tracer::setup() {
  matcher_ = std::make_unique<Matcher>(config_.selectors, procfs_, CgroupMounts::of_this_process(procfs_));
  if (auto r = matcher_->validate(); !r) return r;

  const Selectors& s = config_.selectors;
  EngineOptions& options = config_.engine;
  options.every_process = s.selects_everything();
  options.follow_forks = !options.every_process && !matcher_->is_fixed();
  options.report_processes = !options.every_process && !matcher_->is_fixed();
  options.report_renames = !s.comms.empty();
  options.report_cgroups = !s.cgroups.empty() || !s.containers.empty();
  auto engine = Engine::load(options);
  if (!engine) return engine.error();
  engine_ = std::move(*engine);

  loops_.resize(engine_->slot_count());
  processes_ = std::make_unique<ProcessTable>(*engine_, procfs_, config_.debuginfod, config_.name_service);
  symbolizer_ = std::make_unique<Symbolizer>(Symbolizer::Options{config_.source_lines});
  stacks_ = std::make_unique<StackBuilder>(*symbolizer_);
  takes_stacks_ = options.stacks;
  assembler_ = std::make_unique<Assembler>(*stacks_, procfs_, options.threshold_ns);
  shared_pollers_ =
      std::make_unique<SharedPollers>([this](uint32_t index) -> lt_slot& { return engine_->slot(index); });
  watcher_ = std::make_unique<Watcher>(
      *engine_, options.threshold_ns,
      [this](uint32_t slot, uint64_t start_ns) {
        Message m;
        m.kind = Message::Kind::open_due;
        m.slot = slot;
        m.start_ns = start_ns;
        return queue_.push(std::move(m));
      },
      [this] { drain_wanted_.send(); });

  // Compiling a process's unwind tables can take a second where the CPU is contended, and until they are
  // there its stacks have one frame. Only a few: a pattern may select hundreds, whose files are mostly the
  // same.
  if (!options.every_process && options.stacks) {
    auto targets = scan(procfs_, *matcher_);
    if (targets.size() > kPreparedProcesses) targets.resize(kPreparedProcesses);
    for (const Target& target : targets) processes_->prepare(static_cast<uint32_t>(target.facts.pid));
  }

  if (!config_.conductor) {
    // Attach before looking: what starts in between is reported by the kernel.
    if (auto r = engine_->attach(); !r) return r;
    if (auto r = take_targets(); !r) return r;
    if (targets_ended()) {
      if (auto r = matcher_->validate(); !r) return r;
      return Error{"the target ended before it could be traced", 0, Fault::no_such_target};
    }
    if (auto r = engine_->find_sleepers(); !r) return r;
  }

  start_ns_ = last_report_ns_ = last_housekeeping_ns_ = monotonic_ns();
  StartRecord start;
  start.time_ns = clock_ns(CLOCK_REALTIME);
  start.version = config_.version;
  utsname kernel;
  if (uname(&kernel) == 0) start.kernel = kernel.release;
  start.targets = config_.targets;
  start.threshold_ns = options.threshold_ns;
  start.hook = engine_->uses_fentry()               ? "fentry"
               : options.hook == HookPolicy::always ? "always"
               : options.hook == HookPolicy::never  ? "never"
                                                    : "auto";
  start.features = config_.features;
  if (config_.conductor) start.stalls = "windows";
  if (auto r = sink_.start(start); !r) return r;
  // The tables of the loops that were found: before their first stall.
  engine_->consume([this](std::span<const std::byte> bytes) { handle_record(bytes); });
  if (failure_) return *failure_;
  return {};
}

// Who matches now. Those that no longer do are let go: while the hooks were detached nobody told of their
// end.
Result<void> Tracer::take_targets() {
  if (config_.engine.every_process) return {};
  const auto before = std::exchange(matches_, {});
  for (const Target& target : scan(procfs_, *matcher_)) {
    const auto tgid = static_cast<uint32_t>(target.facts.pid);
    matches_[tgid] = target.match;
    if (auto r = engine_->add_target(tgid); !r) return r;
  }
  for (const auto& [tgid, match] : before) {
    if (!matches_.contains(tgid)) engine_->remove_target(tgid);
  }
  return {};
}

void Tracer::start_threads() {
  reader_ = std::jthread([this](std::stop_token stop) { read_ring(stop); });
  watcher_->start();
  watcher_->discover();
}

void Tracer::stop_reader() {
  if (!reader_.joinable()) return;
  reader_.request_stop();
  drain_wanted_.send();
  reader_.join();
}

Result<void> Tracer::run(int signal_fd, std::function<Result<void>()> reopen) {
  reopen_output_ = std::move(reopen);
  if (!config_.conductor) start_threads();
  worker_ = std::jthread([this](std::stop_token stop) { work(stop); });

  const uint64_t end = config_.duration_ns ? start_ns_ + *config_.duration_ns : UINT64_MAX;
  bool stopping = false;
  while (!stopping) {
    const uint64_t now = monotonic_ns();
    if (now >= end) break;
    const int timeout =
        end == UINT64_MAX ? -1 : static_cast<int>(std::min<uint64_t>((end - now) / 1'000'000 + 1, 60'000));
    pollfd fds[] = {{signal_fd, POLLIN, 0}, {end_wanted_.fd(), POLLIN, 0}};
    if (poll(fds, 2, timeout) < 0 && errno != EINTR) break;
    if (fds[1].revents) break;
    if (fds[0].revents & POLLIN) {
      signalfd_siginfo info;
      if (read(signal_fd, &info, sizeof info) != sizeof info) continue;
      if (info.ssi_signo == SIGHUP) {
        reopen_ = true;
      } else {
        stopping = true;
      }
    }
  }
  if (!config_.conductor) {  // else the worker has them
    watcher_->stop();
    engine_->close();  // before the last read: a stall that is counted is a stall that is read
    stop_reader();
  }
  worker_.request_stop();
  queue_.stop();
  // The worker may hang in a write to a reader that has stopped reading. A second signal ends it all.
  while (!worker_done_) {
    pollfd fds[] = {{signal_fd, POLLIN, 0}, {end_wanted_.fd(), POLLIN, 0}};
    poll(fds, 2, -1);
    if (fds[0].revents & POLLIN) {
      if (stopping) _exit(130);
      signalfd_siginfo info;  // the first: it came while the trace ended by itself
      stopping = read(signal_fd, &info, sizeof info) == sizeof info && info.ssi_signo != SIGHUP;
    }
    end_wanted_.take();
  }
  worker_.join();
  interrupted_ = stopping;
  if (failure_) return *failure_;
  return {};
}

void Tracer::observe(uint64_t duration_ns, int signal_fd) {
  (void)engine_->start_probe();
  const uint64_t end = monotonic_ns() + duration_ns;
  while (monotonic_ns() < end) {
    engine_->consume([this](std::span<const std::byte> bytes) { handle_record(bytes); });
    look_for_clients();
    pollfd fd{signal_fd, POLLIN, 0};
    if (poll(&fd, 1, kObserveMs) > 0) break;
  }
  engine_->stop_probe();
}

// A thread that polls one connection is no event loop, however long it does so.
void Tracer::look_for_clients() {
  for (LoopState& loop : loops_) {
    if (!loop.tid || loop.polls || loop.ignored) continue;
    const lt_slot& slot = engine_->slot(loop.slot);
    if (slot.confirmed) loop.polls = look_at_poll(procfs_, slot);
  }
}

void Tracer::read_ring(std::stop_token stop) {
  const auto on_record = [this](std::span<const std::byte> bytes) {
    const lt_hdr* hdr = record_header(bytes);
    if (!hdr) return;
    if (hdr->kind == LT_REC_SUSPECT || hdr->kind == LT_REC_POLLED) {
      watcher_->poke();
      return;
    }
    Message m;
    m.bytes.assign(bytes.begin(), bytes.begin() + hdr->size);
    if (queue_.push(std::move(m))) return;
    ++(hdr->kind == LT_REC_STALL     ? queue_full_stalls_
       : hdr->kind == LT_REC_CAPTURE ? queue_full_stacks_
                                     : queue_full_events_);
  };
  hurry_this_thread();
  uint64_t passed = barrier_asked_;
  while (!stop.stop_requested()) {
    pollfd fds[] = {{engine_->ring_fd(), POLLIN, 0}, {drain_wanted_.fd(), POLLIN, 0}};
    poll(fds, 2, kIdleDrainMs);
    drain_wanted_.take();
    const uint64_t barrier = barrier_asked_;
    engine_->consume(on_record);
    if (barrier == passed) continue;
    Message m;
    m.kind = Message::Kind::barrier;
    m.start_ns = barrier;
    if (queue_.push(std::move(m))) passed = barrier;
  }
  engine_->consume(on_record);
}

void Tracer::work(std::stop_token stop) {
  if (config_.engine.stacks) (void)symbolizer_->kernel_symbols_hidden();
  while (true) {
    const bool last = stop.stop_requested();
    auto messages = queue_.take(std::chrono::milliseconds(cold_.empty() ? until_next_step() : 10));
    for (const Message& m : messages) {
      if (failure_) break;
      handle(m);
    }
    if (config_.conductor) conduct(last);
    if (reopen_.exchange(false) && reopen_output_) check(reopen_output_());
    const uint64_t now = monotonic_ns();
    const bool looking = engine_->attached();
    if (looking && now - last_housekeeping_ns_ >= kHousekeepingNs) {
      housekeeping(now);
      if (messages.empty()) reconcile();
    }
    // Also of a time without hooks: who waits for a sign of life is not to wait for the next window.
    if (now - last_report_ns_ >= config_.interval_ns && !last) {
      if (looking) report_loops(now);
      last_report_ns_ = now;
      fill_summary();
      summary_.final = false;
      check(sink_.summary(summary_));
      summary_.final = true;
    }
    if (looking) rescan(now);
    if (messages.empty()) warm_up();
    const bool enough = config_.max_stalls && stalls_emitted_ >= *config_.max_stalls;
    if (failure_ || enough || targets_ended()) {
      end_wanted_.send();
      break;
    }
    if (last && messages.empty()) break;
  }
  if (!failure_) finish();
  worker_done_ = true;
  end_wanted_.send();
}

void Tracer::finish() {
  if (engine_->attached()) report_loops(monotonic_ns());
  fill_summary();
  check(sink_.summary(summary_));
}

void Tracer::check(Result<void> result) {
  if (!result && !failure_) failure_ = result.error();
}

void Tracer::handle(const Message& m) {
  if (m.kind == Message::Kind::open_due) {
    watcher_->answer(m.slot, m.start_ns, open_due(m.slot, m.start_ns));
  } else if (m.kind == Message::Kind::barrier) {
    barriers_ = m.start_ns;
  } else {
    handle_record(m.bytes);
  }
}

void Tracer::handle_record(std::span<const std::byte> bytes) {
  if (const auto* r = record_as<lt_stall>(bytes, LT_REC_STALL)) {
    stall(*r);
  } else if (const auto* r = record_as<lt_loop_event>(bytes, LT_REC_LOOP_FOUND)) {
    loop_found(*r);
  } else if (const auto* r = record_as<lt_loop_event>(bytes, LT_REC_LOOP_GONE)) {
    loop_gone(*r);
  } else if (const auto* r = record_as<lt_process_event>(bytes, LT_REC_PROCESS)) {
    process_changed(*r);
  } else if (const auto* r = record_as<lt_path>(bytes, LT_REC_PATH)) {
    if (r->hdr.slot < loops_.size()) assembler_->add_path(loops_[r->hdr.slot], *r);
  } else if (const auto* r = record_as<lt_py_task>(bytes, LT_REC_PY_TASK)) {
    if (LoopState* loop = loop_at(r->hdr.slot, r->generation)) loop->task = *r;
  } else {
    capture(bytes);
  }
}

LoopState* Tracer::loop_at(uint32_t slot, uint64_t generation) {
  if (slot >= loops_.size()) return nullptr;
  LoopState& loop = loops_[slot];
  return loop.generation == generation && loop.tid ? &loop : nullptr;
}

bool Tracer::consider(uint32_t tgid) {
  const auto facts = read_process(procfs_, static_cast<pid_t>(tgid), matcher_->parts());
  const Match match = facts ? matcher_->match(*facts) : Match{};
  if (!match) {
    matches_.erase(tgid);
    engine_->remove_target(tgid);
    return false;
  }
  matches_[tgid] = match;
  if (auto r = engine_->add_target(tgid); !r) {
    warn("targets_full", r.error().message());
    return false;
  }
  return true;
}

void Tracer::process_changed(const lt_process_event& event) {
  const uint32_t tgid = event.hdr.tgid;
  switch (event.change) {
    case LT_PROC_EXIT:
      matches_.erase(tgid);
      return;
    case LT_PROC_EXEC:
      if (processes_->find(tgid)) {
        symbolizer_->forget(static_cast<pid_t>(tgid));
        processes_->forget(tgid);
      }
      [[fallthrough]];
    default:
      const bool known = matches_.contains(tgid);
      if (!consider(tgid)) return;
      watcher_->discover();
      if (!known) rescan_ = true;
  }
}

// A new target may have forked before it was known to be one: its children are found in /proc. The same
// makes up for process events that were lost.
void Tracer::rescan(uint64_t now) {
  if (!rescan_ || config_.engine.every_process || now - last_rescan_ns_ < kRescanNs) return;
  rescan_ = false;
  last_rescan_ns_ = now;
  bool found = false;
  for (const Target& target : scan(procfs_, *matcher_)) {
    const auto tgid = static_cast<uint32_t>(target.facts.pid);
    found |= !matches_.contains(tgid) && consider(tgid);
  }
  if (!found) return;
  watcher_->discover();
  (void)engine_->find_sleepers();
}

void Tracer::loop_found(const lt_loop_event& event) {
  const uint32_t index = event.hdr.slot;
  if (index >= loops_.size() || loops_[index].generation == event.generation) return;
  LoopState& loop = loops_[index];
  shared_pollers_->gone(loop.tgid, index);  // if the word that the last one is gone was lost
  loop = LoopState{};
  loop.slot = index;
  loop.tgid = event.hdr.tgid;
  loop.tid = event.hdr.tid;
  loop.generation = event.generation;
  shared_pollers_->found(loop.tgid, index);
  if (!config_.engine.every_process) {
    auto it = matches_.find(loop.tgid);
    if (it == matches_.end()) {
      consider(loop.tgid);
      it = matches_.find(loop.tgid);
    }
    const auto selected = [&] {
      return it != matches_.end() &&
             (it->second.whole || std::find(it->second.threads.begin(), it->second.threads.end(),
                                            static_cast<pid_t>(loop.tid)) != it->second.threads.end());
    };
    // Threads come and take names later than their process was looked at.
    if (!selected() && it != matches_.end()) {
      consider(loop.tgid);
      it = matches_.find(loop.tgid);
    }
    loop.ignored = !selected();
  }
  if (loop.ignored) return;
  const lt_slot& slot = engine_->slot(index);
  TracedProcess& process = processes_->get(loop.tgid, slot.start_boottime);
  if (++process.loops == 1 && config_.engine.stacks) cold_.push_back(index);
  if (process.runtime)
    engine_->slot(index).py_tstate = process.runtime->thread_state(static_cast<pid_t>(loop.tid));
}

// Opening the symbols and lines of a file (libc's compressed ones: 100 ms) takes longer than the first open
// stall may wait for its record: done while there is nothing else to do.
void Tracer::warm_up() {
  if (cold_.empty()) return;
  const LoopState& loop = loops_[cold_.back()];
  cold_.pop_back();
  const TracedProcess* process = loop.tid ? processes_->find(loop.tgid) : nullptr;
  if (!process || !process->modules) return;
  const auto pid = static_cast<pid_t>(loop.tgid);
  std::vector<Frame> unused;
  symbolizer_->user(pid, *process->modules, engine_->slot(loop.slot).loop.call.ip, true, unused);
  for (const Module& module : process->modules->all()) {
    if (!module.object || !module.object->is_main_program()) continue;
    symbolizer_->user(pid, *process->modules, module.start, false, unused);
    return;
  }
}

void Tracer::loop_gone(const lt_loop_event& event) {
  const uint32_t index = event.hdr.slot;
  if (index >= loops_.size()) return;
  LoopState& loop = loops_[index];
  if (!loop.tid || loop.generation + 1 != event.generation) return;
  if (engine_->slot(index).confirmed && !loop.silent()) {
    report_loop(
        loop, monotonic_ns(), monotonic_ns() - last_report_ns_,
        std::min(monotonic_ns() - last_report_ns_, engine_->hooked_ns(monotonic_ns()) - last_hooked_ns_));
  }
  end_loop(loop, event.generation);
}

void Tracer::end_loop(LoopState& loop, uint64_t generation) {
  const uint32_t index = loop.slot;
  shared_pollers_->gone(loop.tgid, index);
  const lt_stats& stats = engine_->stats(index);
  if (!loop.ignored) {
    if (!loop.silent()) {
      loops_gone_ += engine_->slot(index).confirmed ? 1 : 0;
      stalls_gone_ += stats.stalls;
      unconfirmed_gone_ += stats.unconfirmed;
    }
    if (TracedProcess* process = processes_->find(loop.tgid);
        process && process->loops && --process->loops == 0) {
      symbolizer_->forget(static_cast<pid_t>(loop.tgid));
      processes_->forget(loop.tgid);
    }
  }
  loop = LoopState{};
  loop.generation = generation;
  engine_->free_slot(index);
}

void Tracer::capture(std::span<const std::byte> bytes) {
  auto c = decode_capture(bytes);
  if (!c) return;
  LoopState* loop = loop_at(c->head.hdr.slot, c->head.generation);
  if (!loop || loop->silent()) return;
  lt_slot& slot = engine_->slot(loop->slot);
  if (!slot.py_tstate) {
    TracedProcess* process = processes_->find(loop->tgid);
    if (process && process->runtime)
      slot.py_tstate = process->runtime->thread_state(static_cast<pid_t>(loop->tid));
  }
  // Taken before the process's tables were there, or of memory that is not: while the thread is still
  // blocked, its stack is too. Its record may be open already, and not looked at again for long.
  if (lacks_memory(walk_status(c->head)) && c->head.reason == LT_CAPTURE_SWITCH) {
    const TracedProcess* process = processes_->find(loop->tgid);
    const auto now = snapshot(slot);
    if (process && now && now->off_capture == c->head.id && now->phase == LT_PHASE_BUSY &&
        now->it.seq == c->head.seq) {  // back in its poll it sleeps too, and keeps that capture's id
      if (auto stack = walk_blocked(*process, *now, slot)) std::move(*stack).move_into(*c);
    }
  }
  see_task(*c, *loop);
  if (!c->v8.empty() && c->javascript.empty()) name_javascript(*c, processes_->find(loop->tgid));
  const bool in_futex = c->head.reason == LT_CAPTURE_SWITCH && c->head.nr == LT_NR_futex;
  const uint64_t id = c->head.id;
  assembler_->add_capture(*loop, std::move(*c), slot);
  if (!in_futex) return;
  if (const auto now = snapshot(slot); now && now->off_capture == id) see_holder(*loop, *now);
}

// For whom the frames ran: BPF has sent it right before. It does not know where to look until a capture has
// met asyncio's functions; of that one it is read while the thread is still blocked there.
void Tracer::see_task(RawCapture& c, LoopState& loop) {
  const auto seen = std::exchange(loop.task, std::nullopt);
  TracedProcess* process = processes_->find(loop.tgid);
  if (!process || !process->runtime) return;
  Runtime& runtime = *process->runtime;
  if (seen && seen->id == c.head.id) c.task = seen;
  if (runtime.learn(c.python)) {
    lt_process config{};
    runtime.configure(config);
    engine_->set_interpreter(loop.tgid, config.py);
    const lt_slot& slot = engine_->slot(loop.slot);
    const uint64_t switches = slot.switches;
    if (!c.task && !slot.running && slot.off_capture == c.head.id) {
      const auto late = runtime.see_task(slot.py_tstate);
      if (slot.switches == switches) c.task = late;
    }
  }
  if (c.task) c.task_created_at = runtime.task_created_at(*c.task);
}

// Who has the global lock that the thread waits for, while it does. The wait is cut into short ones, each
// with its capture, so most of them are seen soon enough.
void Tracer::see_holder(LoopState& loop, const lt_slot& s) {
  TracedProcess* process = processes_->find(loop.tgid);
  if (s.running || s.off_nr != LT_NR_futex || !process || !process->runtime) return;
  auto holder = process->runtime->global_lock_holder(s.off_arg0);
  // Only if it has waited all the while.
  if (!holder || engine_->slot(loop.slot).switches != s.switches) return;
  if (static_cast<uint32_t>(holder->tid) != loop.tid)
    assembler_->add_holder(loop, s.it.seq, std::move(*holder));
}

bool Tracer::parked(const LoopState& loop, const lt_slot& slot, const lt_iteration& it) const {
  if (!(slot.user_flags & LT_SLOT_SHARED_POLLER)) return false;
  // Most of the time in one futex wait at the poll's own depth: the worker had nothing to do.
  for (uint32_t i = 0; i < std::min<uint32_t>(it.nwaits, LT_MAX_WAITS); ++i) {
    const lt_wait& w = it.waits[i];
    if (w.nr != LT_NR_futex || w.total_ns * 2 < it.part_ns[LT_PART_BLOCKED]) continue;
    for (const PendingStack& p : loop.pending) {
      if (std::find(p.ids.begin(), p.ids.end(), w.capture) == p.ids.end()) continue;
      return lt_parked(&slot, w.nr, p.capture.head.sp);
    }
    return w.capture == 0;
  }
  return false;
}

void Tracer::emit(const Stall& stall) {
  if (stall.state == StallState::closed) ++stalls_emitted_;  // its open records are no stalls of their own
  check(sink_.stall(stall));
}

void Tracer::stall(const lt_stall& record) {
  LoopState* loop = loop_at(record.hdr.slot, record.generation);
  if (!loop) ++orphan_stalls_;
  if (!loop || loop->silent() || loop->cut_seq == record.it.seq) return;
  const lt_slot& slot = engine_->slot(loop->slot);
  if (record.poll_kind == LT_POLL_EPOLL) shared_pollers_->mark(loop->tgid, monotonic_ns());
  if (parked(*loop, slot, record.it)) {
    ++parked_;
    return;
  }
  if (config_.max_stalls && stalls_emitted_ >= *config_.max_stalls) return;
  TracedProcess& process = processes_->get(loop->tgid, slot.start_boottime);
  const bool was_open = loop->open_seq == record.it.seq && !loop->open_id.empty();
  bool stale = false;
  const IterationView view{record.it,        record.end_ns,  record.ended_by,
                           record.poll_kind, record.poll_fd, false};
  emit(assembler_->build(*loop, process, view, comm_text(record.comm), was_open ? loop->open_id : next_id(),
                         stale));
  if (stale && follows(process)) processes_->refresh(process, monotonic_ns());
  loop->turn_to(record.it.seq + 1);  // thousands of loops may never stall again
}

void Tracer::keep_live_target(LoopState& loop, const lt_slot& s) {
  const uint64_t key = lt_wait_key(s.off_nr, s.off_arg0, s.off_fd);
  if (loop.seq == s.it.seq) {
    for (const LiveTarget& t : loop.live_targets) {
      if (t.nr == s.off_nr && t.key == key) return;
    }
    if (loop.live_targets.size() >= LT_MAX_WAITS) return;
  }
  auto target = resolve_fd(procfs_, static_cast<pid_t>(loop.tgid), s.off_fd);
  // The descriptor cannot have changed under a thread that blocks in it and has not run meanwhile.
  if (!target || engine_->slot(loop.slot).switches != s.switches) return;
  loop.turn_to(s.it.seq);
  loop.live_targets.push_back({s.off_nr, key, std::move(*target)});
}

void Tracer::take_live_stack(LoopState& loop, TracedProcess& process, const lt_slot& s) {
  const uint64_t key = lt_wait_key(s.off_nr, s.off_arg0, s.off_fd);
  for (const LiveStack& l : loop.live) {
    if (l.nr == s.off_nr && l.key == key) return;
  }
  if (loop.live.size() >= LT_MAX_WAITS) return;
  auto stack = walk_blocked(process, s, engine_->slot(loop.slot));
  if (!stack) return;
  LiveStack live;
  live.nr = s.off_nr;
  live.key = key;
  RawCapture& c = live.capture;
  c.head = {};
  c.head.seq = s.it.seq;
  c.head.reason = LT_CAPTURE_SWITCH;
  c.head.nr = s.off_nr;
  c.head.sp = s.off_sp;
  std::move(*stack).move_into(c);
  assembler_->count_stack(loop, walk_status(c.head));
  loop.turn_to(s.it.seq);
  loop.live.push_back(std::move(live));
}

// The capture of a process whose tables were not built yet has the innermost frame only; that of a stack in
// part swapped out, or through code compiled just now, ends early: walks the stack anew, from outside, where
// pages are read in.
void Tracer::mend_capture(LoopState& loop, TracedProcess& process, lt_slot s) {
  if (loop.seq != s.it.seq) return;
  const auto p = std::find_if(loop.pending.begin(), loop.pending.end(), [&](const PendingStack& pending) {
    return std::find(pending.ids.begin(), pending.ids.end(), s.off_capture) != pending.ids.end();
  });
  if (p == loop.pending.end()) return;
  RawCapture& c = p->capture;
  const uint32_t status = walk_status(c.head);
  const bool in_code = process.makes_code && status != LT_UNWIND_END && status != LT_UNWIND_FULL;
  if (ended_in_made_code(c, process)) processes_->refresh(process, monotonic_ns());
  if (!in_code && !lacks_memory(status) && !(process.runtime && c.python.empty() && c.v8.empty())) return;
  if (process.runtime && !s.py_tstate) {
    s.py_tstate = process.runtime->thread_state(static_cast<pid_t>(loop.tid));
    engine_->slot(loop.slot).py_tstate = s.py_tstate;
  }
  if (auto stack = walk_blocked(process, s, engine_->slot(loop.slot))) std::move(*stack).move_into(c);
  assembler_->count_mended(loop, status, walk_status(c.head));
}

// The loop's iteration that began then and goes on, if it is a stall already.
std::optional<Tracer::OpenStall> Tracer::look_at_open(LoopState& loop, uint64_t start_ns) {
  const auto s = snapshot(engine_->slot(loop.slot));
  if (!s || s->generation != loop.generation || s->phase != LT_PHASE_BUSY || s->it.start_ns != start_ns ||
      !s->confirmed)
    return std::nullopt;
  OpenStall open{*s, *s, monotonic_ns()};
  const uint64_t threshold = config_.engine.threshold_ns;
  const uint64_t age = open.now_ns - start_ns;
  if (age < threshold) return std::nullopt;
  if (!s->running && s->off_reason == LT_OFF_BLOCKED && s->off_fd >= 0) keep_live_target(loop, *s);
  book_until(open.slot, open.now_ns, engine_->hook_since());
  const bool trust = config_.engine.hook != HookPolicy::automatic;
  if (lt_judge(&open.slot.it, age, threshold, trust) != LT_IS_STALL) return std::nullopt;
  return open;
}

uint64_t Tracer::open_due(uint32_t index, uint64_t start_ns) {
  if (index >= loops_.size()) return UINT64_MAX;
  LoopState& loop = loops_[index];
  if (!loop.tid || loop.silent()) return UINT64_MAX;
  lt_slot& live = engine_->slot(index);
  const auto open = look_at_open(loop, start_ns);
  // Over, or no stall yet.
  if (!open) return engine_->pulses()[index] == start_ns ? 0 : UINT64_MAX;
  const uint64_t threshold = config_.engine.threshold_ns;
  const uint64_t now = open->now_ns;
  const lt_slot* s = &open->slot;
  const lt_slot& before = open->live;
  uint64_t mark = threshold;
  while (mark * 10 <= now - start_ns) mark *= 10;
  if (loop.open_seq == s->it.seq && loop.reported_mark_ns >= mark) return mark;
  if (s->loop.call.kind == LT_POLL_EPOLL) {
    shared_pollers_->mark(loop.tgid, now);
    if (mark > threshold) {
      // A loop whose epoll fd is gone has ended; what runs now is something else.
      const auto link = procfs_.link(static_cast<pid_t>(loop.tgid), "fd/" + std::to_string(s->loop.call.fd));
      if (link && link->find("eventpoll") == std::string::npos) {
        live.user_flags |= LT_SLOT_RELEARN;
        return UINT64_MAX;
      }
    }
  }
  TracedProcess& process = processes_->get(loop.tgid, s->start_boottime);
  if (!before.running && before.off_reason == LT_OFF_BLOCKED) {
    if (!before.off_capture) {
      take_live_stack(loop, process, before);
    } else {
      mend_capture(loop, process, before);
    }
    see_holder(loop, before);
  }
  if (parked(loop, live, s->it)) return 0;
  if (config_.max_stalls && stalls_emitted_ >= *config_.max_stalls) return UINT64_MAX;
  if (loop.open_seq != s->it.seq) {
    loop.open_seq = s->it.seq;
    loop.open_id = next_id();
    loop.open_time_ns = 0;
  }
  loop.reported_mark_ns = mark;
  bool stale = false;
  const IterationView view{s->it, now, LT_ENDED_POLL, s->loop.call.kind, s->loop.call.fd, true};
  emit(assembler_->build(loop, process, view, comm_text(s->comm), loop.open_id, stale));
  if (stale && follows(process)) processes_->refresh(process, now);
  return mark;
}

void Tracer::warn(std::string code, std::string message) {
  check(sink_.warning({clock_ns(CLOCK_REALTIME), std::move(code), std::move(message)}));
}

std::map<std::string, uint64_t> Tracer::losses() {
  std::map<std::string, uint64_t> drops;
  const auto kernel = engine_->drops();
  for (uint32_t i = 0; i < LT_NR_DROPS; ++i) {
    if (kernel[i] && i != LT_DROP_CAPTURE_BUDGET && i != LT_DROP_SWITCH_HEALED)
      drops[drop_name(static_cast<lt_drop>(i))] = kernel[i];
  }
  if (const uint64_t n = queue_full_stalls_) drops["stall_queue_full"] = n;
  if (const uint64_t n = queue_full_stacks_) drops["stack_queue_full"] = n;
  if (const uint64_t n = queue_full_events_) drops["event_queue_full"] = n;
  if (const uint64_t n = watcher_->refused()) drops["open_queue_full"] = n;
  if (orphan_stalls_) drops["stall_of_unknown_loop"] = orphan_stalls_;
  return drops;
}

void Tracer::report_drops() {
  std::map<std::string, uint64_t> drops = losses();
  const auto kernel = engine_->drops();
  summary_.switches_healed = kernel[LT_DROP_SWITCH_HEALED];
  summary_.stacks = assembler_->stacks();
  summary_.stacks_skipped = kernel[LT_DROP_CAPTURE_BUDGET] + assembler_->stacks_pruned();
  for (const auto& [reason, n] : drops) {
    uint64_t& reported = reported_drops_[reason];
    if (n == reported) continue;
    std::string what = std::to_string(n - reported) + " more lost, " + std::to_string(n) + " in all";
    if (reason == drop_name(LT_DROP_LOOPS_FULL)) what += "; raise --max-loops or name fewer targets";
    if (reason.ends_with("ring_full")) what += "; raise --ring-bytes or the threshold";
    if (reason == drop_name(LT_DROP_HOOK_MISSED))
      what += "; iterations may have been merged, or parts of them misjudged";
    if (reason.ends_with("queue_full")) {
      what += "; the reader of the output is too slow, or stalls are too many: raise the threshold";
    }
    reported = n;
    warn(reason, what);
  }
  summary_.dropped = std::move(drops);
}

void Tracer::housekeeping(uint64_t now) {
  last_housekeeping_ns_ = now;
  report_drops();
  if (config_.engine.every_process) look_for_clients();
  for (const LoopState& loop : loops_) {
    if (!loop.tid || loop.ignored) continue;
    TracedProcess* process = processes_->find(loop.tgid);
    if (!process) continue;
    if (process->makes_code && follows(*process) && process->is_older(kCodeAgeNs, now))
      processes_->refresh(*process, now);
    for (const std::string& w : std::exchange(process->warnings, {})) {
      const size_t colon = w.find(": ");
      warn(w.substr(0, colon), process->info.comm + "[" + std::to_string(process->tgid) +
                                   "]: " + (colon == std::string::npos ? w : w.substr(colon + 2)));
    }
  }
}

// Makes up for found and gone events that were lost. Slots are ahead of the queue: only when that is empty.
void Tracer::reconcile() {
  const auto drops = engine_->drops();
  const uint64_t lost = drops[LT_DROP_GONE_RING_FULL] + drops[LT_DROP_PROCESS_RING_FULL] + queue_full_events_;
  if (std::exchange(events_lost_, lost) == lost) return;
  rescan_ = true;
  for (uint32_t i = 0; i < loops_.size(); ++i) {
    const lt_slot& slot = engine_->slot(i);
    if (!slot.tid) continue;
    lt_loop_event event{};
    event.hdr.slot = i;
    event.hdr.tgid = slot.tgid;
    event.hdr.tid = slot.tid;
    event.generation = slot.generation;
    if (slot.generation & 1) {
      if (loops_[i].generation != slot.generation) loop_found(event);
    } else {
      if (loops_[i].tid && loops_[i].generation + 1 == slot.generation) {
        loop_gone(event);
      } else if (loops_[i].generation != slot.generation) {  // found and gone between two looks
        shared_pollers_->gone(loops_[i].tgid, i);
        loops_[i] = LoopState{};
        loops_[i].generation = slot.generation;
        engine_->free_slot(i);
      }
    }
  }
}

void Tracer::report_loops(uint64_t now) {
  const uint64_t interval = now - last_report_ns_;
  const uint64_t hooked = engine_->hooked_ns(now);
  const uint64_t hooked_part = std::min(interval, hooked - last_hooked_ns_);
  last_report_ns_ = now;
  last_hooked_ns_ = hooked;
  for (LoopState& loop : loops_) {
    if (loop.tid && !loop.silent()) report_loop(loop, now, interval, hooked_part);
  }
}

void Tracer::report_loop(LoopState& loop, uint64_t now, uint64_t interval, uint64_t hooked_part) {
  const auto s = snapshot(engine_->slot(loop.slot));
  if (!s || !s->confirmed || s->generation - loop.generation > 1) return;
  const lt_stats stats = engine_->stats(loop.slot);
  const auto [busy, idle] = busy_and_idle(stats, *s, now);

  LoopRecord r;
  r.time_ns = clock_ns(CLOCK_REALTIME);
  r.interval_ns = interval;
  r.hooked_ns = hooked_part;
  const TracedProcess& process = processes_->get(loop.tgid, s->start_boottime);
  r.process = process.info;
  r.container = process.container;
  r.service = process.service;
  r.thread_id = loop.tid;
  r.thread_name = comm_text(s->comm);
  r.loop.kind = poll_kind_name(s->loop.call.kind);
  if (s->loop.call.fd >= 0) r.loop.fd = s->loop.call.fd;
  r.iterations = stats.iterations - loop.last.iterations;
  r.busy_ns = busy > loop.last_busy_ns ? busy - loop.last_busy_ns : 0;
  r.idle_ns = idle > loop.last_idle_ns ? idle - loop.last_idle_ns : 0;
  r.stalls = stats.stalls - loop.last.stalls;
  r.stall_ns = stats.stall_ns - loop.last.stall_ns;
  r.unconfirmed = stats.unconfirmed - loop.last.unconfirmed;
  r.stacks = loop.stacks.since(loop.last_stacks);
  loop.last_stacks = loop.stacks;
  if (hooked_part) {
    r.iteration_counts = {loop.last.iteration_hist.since(stats.iteration_hist),
                          stats.iteration_sum_ns - loop.last.iteration_sum_ns};
    r.iteration = percentiles(kShape, r.iteration_counts.counts, stats.iteration_max_ns);
  }
  r.wakeup_counts = {loop.last.wakeup_hist.since(stats.wakeup_hist),
                     stats.wakeup_sum_ns - loop.last.wakeup_sum_ns};
  r.wakeup_delay = percentiles(kShape, r.wakeup_counts.counts, stats.wakeup_max_ns);
  loop.last.set(stats);
  loop.last_busy_ns = busy;
  loop.last_idle_ns = idle;
  check(sink_.loop(r));
}

void Tracer::fill_summary() {
  report_drops();
  summary_.time_ns = clock_ns(CLOCK_REALTIME);
  summary_.elapsed_ns = monotonic_ns() - start_ns_;
  uint64_t seen = stalls_gone_, unconfirmed = unconfirmed_gone_;
  uint64_t loops = 0;
  for (const LoopState& loop : loops_) {
    if (!loop.tid || loop.silent()) continue;
    const lt_stats& stats = engine_->stats(loop.slot);
    seen += stats.stalls;
    unconfirmed += stats.unconfirmed;
    loops += engine_->slot(loop.slot).confirmed ? 1 : 0;
  }
  summary_.loops = loops + loops_gone_;
  summary_.stalls_seen = seen;
  summary_.stalls_emitted = stalls_emitted_;
  if (unconfirmed) summary_.dropped["unconfirmed"] = unconfirmed;
  if (parked_) summary_.dropped["parked_worker"] = parked_;
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& t) {
    return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_usec) * 1000;
  };
  summary_.own_cpu_ns = ns(usage.ru_utime) + ns(usage.ru_stime);
  if (const uint64_t run = engine_->run_time_ns()) summary_.bpf_run_ns = run;
  if (auto statm = read_file("/proc/self/statm")) {
    const auto parts = split(*statm, ' ');
    if (parts.size() > 1) {
      summary_.resident_bytes = std::strtoull(std::string(parts[1]).c_str(), nullptr, 10) *
                                static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    }
  }
}

std::vector<LoopListing> Tracer::listing(uint64_t elapsed_ns) {
  std::vector<LoopListing> out;
  const uint64_t now = monotonic_ns();
  for (LoopState& loop : loops_) {
    if (!loop.tid || loop.silent()) continue;
    const auto s = snapshot(engine_->slot(loop.slot));
    if (!s || !looks_like_loop(*s) || s->generation != loop.generation) continue;
    const lt_stats& stats = engine_->stats(loop.slot);
    const TracedProcess& process = processes_->get(loop.tgid, s->start_boottime);
    LoopListing l;
    l.process = process.info;
    l.thread_id = loop.tid;
    l.thread_name = comm_text(s->comm);
    l.loop.kind = poll_kind_name(s->loop.call.kind);
    if (s->loop.call.fd >= 0) l.loop.fd = s->loop.call.fd;
    const auto [busy, idle] = busy_and_idle(stats, *s, now);
    l.iterations_per_second =
        elapsed_ns ? static_cast<double>(stats.iterations) * 1e9 / static_cast<double>(elapsed_ns) : 0;
    l.utilization = busy + idle ? static_cast<double>(busy) / static_cast<double>(busy + idle) : 0;
    out.push_back(std::move(l));
  }
  std::sort(out.begin(), out.end(), [](const LoopListing& a, const LoopListing& b) {
    return std::pair(a.process.pid, a.thread_id) < std::pair(b.process.pid, b.thread_id);
  });
  return out;
}

std::vector<std::string> Tracer::not_loops() {
  std::vector<std::string> out;
  for (const LoopState& loop : loops_) {
    if (!loop.tid) continue;
    const lt_slot& s = engine_->slot(loop.slot);
    if (looks_like_loop(s) && !loop.silent()) continue;
    std::string why = loop.ignored ? "not selected" : "";
    if (loop.polls && loop.polls->is_client) {
      why = "its poll is on one connection, " + loop.polls->what + ": a synchronous client's";
    }
    if (why.empty()) {
      const lt_poll_call& call = s.loop.call;
      why = std::string("its ") + poll_kind_name(call.kind);
      why += call.kind == LT_POLL_POLL
                 ? " on " + std::to_string(call.nfds) + (call.nfds == 1 ? " descriptor" : " descriptors")
                 : "";
      why += s.loop.seen < 2
                 ? " was seen once: it does not recur (yet)"
                 : " recurred " + std::to_string(s.loop.seen) + " times: a client waiting does the same";
    }
    out.push_back(comm_text(s.comm) + "[" + std::to_string(loop.tgid) + "] thread " +
                  std::to_string(loop.tid) + ": " + why);
  }
  return out;
}

}  // namespace looptrace
