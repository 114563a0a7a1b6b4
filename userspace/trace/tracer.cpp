// SPDX-License-Identifier: Apache-2.0
#include "trace/tracer.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <utility>

#include "base/host.h"
#include "base/own_usage.h"
#include "stacks/elf_object.h"
#include "targets/cgroup.h"
#include "targets/scan.h"
#include "trace/blocked_stack.h"
#include "trace/clock.h"
#include "trace/hurry.h"
#include "trace/loop_listing.h"

namespace looptrace {

namespace {

// Records that ask for no wake-up are read this late at most, if the watcher has no reason to ask sooner.
constexpr int kIdleDrainMs = 500;
constexpr int kObserveMs = 25;
// What waits for the worker at most. A slow reader of our output fills it; then records are dropped, counted.
constexpr size_t kQueueBytes = 24u << 20;
// Before the hooks are attached: the tables of so many are compiled, since a pattern may select hundreds,
// whose files are mostly the same; and what can be done in this time is given to the kernel (2 ms a process,
// of whose files it has the tables already).
constexpr size_t kPreparedProcesses = 16;
constexpr uint64_t kPrepareNs = 50'000'000;
constexpr uint64_t kHousekeepingNs = 1'000'000'000;
constexpr uint64_t kIdleNs = 20'000'000'000;
// A JIT compiler that has warmed up compiles little; a look at a small JVM takes 10 to 30 ms.
constexpr uint64_t kCodeAgeNs = 10'000'000'000;

// Ids are unique among the runs of all hosts.
std::string id_prefix(const std::string& host_name) {
  const std::string host = host_name.empty() ? read_host_info().name : host_name;
  char run[16];
  std::snprintf(run, sizeof run, "%04x",
                static_cast<unsigned>((monotonic_ns() ^ static_cast<uint64_t>(getpid()) << 7) & 0xffff));
  return (host.empty() ? "host" : host) + "-" + run + "-";
}

}  // namespace

Tracer::Tracer(TraceConfig config, Sink& sink)
    : config_(std::move(config)), sink_(sink), queue_(kQueueBytes) {}

Tracer::~Tracer() {
  if (watcher_) watcher_->stop();
  stop_reader();
  if (worker_.joinable()) {
    worker_.request_stop();
    queue_.stop();
    worker_.join();
  }
}

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

  make_parts();

  if (!options.every_process && options.stacks) prepare_processes();

  if (!config_.conductor) {
    // Attach before looking: what starts in between is reported by the kernel.
    if (auto r = engine_->attach(); !r) return r;
    if (auto r = targets_->take(); !r) return r;
    if (targets_ended()) {
      if (auto r = matcher_->validate(); !r) return r;
      return Error{"the target ended before it could be traced", 0, Fault::no_such_target};
    }
    if (auto r = engine_->find_sleepers(); !r) return r;
  }

  start_ns_ = last_housekeeping_ns_ = monotonic_ns();
  loop_records_->begin(start_ns_);
  if (auto r = start_record(); !r) return r;
  // The tables of the loops that were found: before their first stall.
  const auto take = [this] {
    engine_->consume([this](std::span<const std::byte> bytes) { handle_record(bytes); });
  };
  take();
  if (engine_->attached()) look_for_parked_workers(monotonic_ns());
  take();
  if (failure_) return *failure_;
  return {};
}

void Tracer::make_parts() {
  const EngineOptions& options = config_.engine;
  loops_.resize(engine_->slot_count());
  targets_ = std::make_unique<TargetSet>(*engine_, procfs_, *matcher_, options.every_process,
                                         [this](const std::string& why) { warn("targets_full", why); });
  processes_ = std::make_unique<ProcessTable>(*engine_, procfs_, config_.debuginfod, config_.name_service);
  processes_->follow_made_code(options.stacks);
  symbolizer_ = std::make_unique<Symbolizer>(Symbolizer::Options{config_.source_lines});
  stacks_ = std::make_unique<StackBuilder>(*symbolizer_);
  assembler_ = std::make_unique<Assembler>(*stacks_, procfs_, options.threshold_ns);
  captures_ = std::make_unique<Captures>(*engine_, procfs_, *processes_, *assembler_);
  shared_pollers_ =
      std::make_unique<SharedPollers>([this](uint32_t index) -> lt_slot& { return engine_->slot(index); });
  stalls_ = std::make_unique<StallReporter>(
      StallReporter::Options{options.threshold_ns, options.hook != HookPolicy::automatic, config_.max_stalls,
                             id_prefix(config_.host_name)},
      *engine_, procfs_, *processes_, *assembler_, *captures_, *shared_pollers_,
      [this](const Stall& stall) { check(sink_.stall(stall)); });
  loop_records_ = std::make_unique<LoopRecords>(
      *engine_, *processes_, [this](const LoopRecord& record) { check(sink_.loop(record)); });
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
}

// Compiling a process's unwind tables can take a second where the CPU is contended, and handing them to the
// kernel takes tens of milliseconds; until then stacks of a loop that is busy already have one frame. What is
// not done in time is done when its first loop is found.
void Tracer::prepare_processes() {
  const uint64_t end = monotonic_ns() + kPrepareNs;
  size_t done = 0;
  for (const Target& target : scan(procfs_, *matcher_)) {
    if (done++ >= kPreparedProcesses && monotonic_ns() >= end) break;
    const auto tgid = static_cast<uint32_t>(target.facts.pid);
    const bool all = processes_->prepare(tgid);
    // A conductor's windows come later, if at all.
    if (all && !config_.conductor && monotonic_ns() < end) processes_->get(tgid, 0);
  }
}

Result<void> Tracer::start_record() {
  const EngineOptions& options = config_.engine;
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
  return sink_.start(start);
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
    look_at_lone_polls();
    pollfd fd{signal_fd, POLLIN, 0};
    if (poll(&fd, 1, kObserveMs) > 0) break;
  }
  engine_->stop_probe();
}

// A thread that polls one connection or its terminal is no event loop, however long it does so.
void Tracer::look_at_lone_polls() {
  for (LoopState& loop : loops_) {
    if (!loop.tid || loop.polls || loop.ignored) continue;
    const lt_slot& slot = engine_->slot(loop.slot);
    if (slot.confirmed) loop.polls = look_at_lone_poll(procfs_, slot);
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
    ++(hdr->kind == LT_REC_STALL     ? queue_losses_.stalls
       : hdr->kind == LT_REC_CAPTURE ? queue_losses_.stacks
                                     : queue_losses_.events);
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
  // The kernel's symbols take 45 ms: loops that were found meanwhile come first.
  bool kernel_is_read = !config_.engine.stacks;
  while (true) {
    const bool last = stop.stop_requested();
    const bool idle = kernel_is_read && !symbolizer_->has_more_to_read();
    auto messages = queue_.take(std::chrono::milliseconds(idle ? until_next_step() : 0));
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
    if (now - loop_records_->began_ns() >= config_.interval_ns && !last) end_interval(now);
    if (looking) look_for_targets(now);
    if (messages.empty() && !std::exchange(kernel_is_read, true)) {
      (void)symbolizer_->kernel_symbols_hidden();
    } else if (messages.empty()) {
      symbolizer_->read_on();
    }
    if (messages.empty() && looking) look_for_parked_workers(now);
    if (failure_ || stalls_->has_enough() || targets_ended()) {
      end_wanted_.send();
      break;
    }
    if (last && messages.empty()) break;
  }
  if (!failure_) {
    if (engine_->attached()) loop_records_->end(loops_, monotonic_ns());
    fill_summary();
    check(sink_.summary(summary_));
  }
  worker_done_ = true;
  end_wanted_.send();
}

void Tracer::end_interval(uint64_t now) {
  if (engine_->attached()) {
    loop_records_->end(loops_, now);
  } else {
    loop_records_->begin(now);
  }
  fill_summary();
  summary_.final = false;
  check(sink_.summary(summary_));
  summary_.final = true;
}

void Tracer::check(const Result<void>& result) {
  if (!result && !failure_) failure_ = result.error();
}

void Tracer::handle(const Message& m) {
  if (m.kind == Message::Kind::open_due) {
    LoopState* loop = m.slot < loops_.size() && loops_[m.slot].tid ? &loops_[m.slot] : nullptr;
    const bool told = loop && !loop->silent();
    watcher_->answer(m.slot, m.start_ns, told ? stalls_->open(*loop, m.start_ns) : UINT64_MAX);
  } else if (m.kind == Message::Kind::barrier) {
    barriers_ = m.start_ns;
  } else {
    handle_record(m.bytes);
  }
}

void Tracer::handle_record(std::span<const std::byte> bytes) {
  if (const auto* r = record_as<lt_stall>(bytes, LT_REC_STALL)) {
    stalls_->closed(loop_at(r->hdr.slot, r->generation), *r);
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
  } else if (auto c = decode_capture(bytes)) {
    LoopState* loop = loop_at(c->head.hdr.slot, c->head.generation);
    if (loop && !loop->silent()) captures_->add(std::move(*c), *loop);
  }
}

LoopState* Tracer::loop_at(uint32_t slot, uint64_t generation) {
  if (slot >= loops_.size()) return nullptr;
  LoopState& loop = loops_[slot];
  return loop.generation == generation && loop.tid ? &loop : nullptr;
}

void Tracer::process_changed(const lt_process_event& event) {
  const uint32_t tgid = event.hdr.tgid;
  if (event.change == LT_PROC_EXIT) {
    targets_->exited(tgid);
    if (const TracedProcess* process = processes_->find(tgid); process && process->loops == 0)
      processes_->forget(tgid);
    return;
  }
  if (event.change == LT_PROC_EXEC && processes_->find(tgid)) {
    symbolizer_->forget(static_cast<pid_t>(tgid));
    processes_->forget(tgid);
  }
  if (targets_->changed(tgid)) watcher_->discover();
}

void Tracer::look_for_targets(uint64_t now) {
  if (!targets_->rescan(now)) return;
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
  parked_due_.loop_found(loop.tgid, monotonic_ns());
  loop.ignored = !targets_->selects(loop.tgid, loop.tid);
  if (loop.ignored) return;
  const lt_slot& slot = engine_->slot(index);
  TracedProcess& process = processes_->get(loop.tgid, slot.start_boottime);
  if (process.loops == 0) processes_->refresh(process, monotonic_ns());  // prepared, perhaps long ago
  if (++process.loops == 1 && config_.engine.stacks && process.modules)
    want_files(*process.modules, slot.loop.call.ip);
  if (process.runtime) renew_states(*process.runtime, {}, engine_->slot(index));
}

void Tracer::look_for_parked_workers(uint64_t now) {
  constexpr int kProcesses = 16;  // of thousands, at a time: 50 us each
  for (int i = 0; i < kProcesses; ++i) {
    const auto tgid = parked_due_.next(now);
    if (!tgid) return;
    const TracedProcess* process = processes_->find(*tgid);
    if (!process) continue;
    shared_pollers_->mark(*tgid, now);
    std::map<uint32_t, const lt_poll_call*> loops;
    for (const uint32_t index : shared_pollers_->slots_of(*tgid))
      loops.emplace(loops_[index].tid, &engine_->slot(index).loop.call);
    const auto parked = find_parked_workers(*process, engine_->waiting_threads(*tgid),
                                            [&](uint32_t tid) -> const lt_poll_call* {
                                              const auto it = loops.find(tid);
                                              return it == loops.end() ? nullptr : it->second;
                                            });
    if (parked.empty()) continue;
    for (const Engine::Parked& worker : parked) shared_pollers_->share(*tgid, worker.epoll_fd);
    (void)engine_->find_sleepers(parked);
  }
}

// The symbols and lines of the files that most stacks go through: the program and the C library, or where
// else the loop's poll is called. They may be large, and debug files compressed.
void Tracer::want_files(const ProcessModules& modules, uint64_t poll_ip) {
  const Module* const poll = modules.find(poll_ip);
  for (const Module& module : modules.all()) {
    if (!module.object) continue;
    if (&module == poll || module.object->is_main_program() || module.object->name().starts_with("libc.so"))
      symbolizer_->want(module.object);
  }
}

void Tracer::loop_gone(const lt_loop_event& event) {
  const uint32_t index = event.hdr.slot;
  if (index >= loops_.size()) return;
  LoopState& loop = loops_[index];
  if (!loop.tid || loop.generation + 1 != event.generation) return;
  loop_records_->last_of(loop, monotonic_ns());
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

void Tracer::warn(std::string code, std::string message) {
  check(sink_.warning({clock_ns(CLOCK_REALTIME), std::move(code), std::move(message)}));
}

std::map<std::string, uint64_t> Tracer::losses() {
  auto kernel = engine_->drops();
  kernel[LT_DROP_HOOK_MISSED] = engine_->hooks_missed();
  return name_losses(kernel, queue_losses_, watcher_->refused(), stalls_->orphans());
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
    warn(reason, loss_message(reason, n - reported, n));
    reported = n;
  }
  summary_.dropped = std::move(drops);
}

void Tracer::housekeeping(uint64_t now) {
  last_housekeeping_ns_ = now;
  report_drops();
  if (now - idle_dropped_ns_ >= kIdleNs) {
    idle_dropped_ns_ = now;
    processes_->drop_idle();
  }
  if (config_.engine.every_process) look_at_lone_polls();
  for (const LoopState& loop : loops_) {
    if (!loop.tid || loop.ignored) continue;
    TracedProcess* process = processes_->find(loop.tgid);
    if (!process) continue;
    if (process->makes_code && processes_->follows(*process) && process->is_older(kCodeAgeNs, now))
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
  const uint64_t lost =
      drops[LT_DROP_GONE_RING_FULL] + drops[LT_DROP_PROCESS_RING_FULL] + queue_losses_.events;
  if (std::exchange(events_lost_, lost) == lost) return;
  targets_->suspect_more();
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
  summary_.stalls_emitted = stalls_->emitted();
  if (unconfirmed) summary_.dropped["unconfirmed"] = unconfirmed;
  if (const uint64_t n = stalls_->parked()) summary_.dropped["parked_worker"] = n;
  if (const uint64_t n = stalls_->parked_and_busy()) summary_.dropped["parked_and_busy"] = n;
  summary_.own_cpu_ns = own_cpu_ns();
  if (const uint64_t run = engine_->run_time_ns()) summary_.bpf_run_ns = run;
  if (const uint64_t bytes = memory_bytes()) summary_.resident_bytes = bytes;
}

std::vector<LoopListing> Tracer::listing(uint64_t elapsed_ns) {
  return list_loops(loops_, *engine_, *processes_, elapsed_ns);
}

std::vector<std::string> Tracer::not_loops() { return list_others(loops_, *engine_); }

}  // namespace looptrace
