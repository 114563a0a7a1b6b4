// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/wake_up.h"
#include "bpf/engine.h"
#include "sinks/sink.h"
#include "stacks/symbolizer.h"
#include "targets/selector.h"
#include "trace/assembler.h"
#include "trace/captures.h"
#include "trace/conductor.h"
#include "trace/loop_records.h"
#include "trace/losses.h"
#include "trace/parked_workers.h"
#include "trace/processes.h"
#include "trace/queue.h"
#include "trace/shared_pollers.h"
#include "trace/stack_builder.h"
#include "trace/stall_reporter.h"
#include "trace/target_set.h"
#include "trace/watcher.h"

namespace looptrace {

struct TraceConfig {
  EngineOptions engine;  ///< the tracer fills in what follows from the selectors
  Selectors selectors;
  std::vector<std::string> targets;  ///< as they were given, for the start record
  uint64_t interval_ns = 10'000'000'000;
  std::optional<uint64_t> duration_ns;
  std::optional<uint64_t> max_stalls;  ///< stop after that many stall records
  bool source_lines = true;
  std::shared_ptr<Debuginfod> debuginfod;  ///< null: no server is asked
  std::string version;
  std::vector<Capability> features;  ///< for the start record
  std::string host_name;             ///< in the ids of stalls; empty: the host's own
  ServiceNamer name_service;         ///< empty: records carry no service
  Conductor* conductor = nullptr;    ///< outlives the tracer; null: attached from setup() to the end
};

/// One trace from load to detach. Threads: the reader copies ring records into a bounded queue; the watcher
/// looks for late loops; the worker assembles records and writes them to the sink; the caller waits.
class Tracer {
 public:
  Tracer(TraceConfig config, Sink& sink);
  ~Tracer();

  /// Checks the targets, loads and attaches. After it every matching process is traced.
  Result<void> setup();

  /// Runs until the duration or the number of stalls is reached, a signal arrives on `signal_fd`
  /// (signalfd of SIGINT, SIGTERM, SIGHUP), or the sink fails. SIGHUP calls `reopen` in the worker.
  Result<void> run(int signal_fd, std::function<Result<void>()> reopen);

  /// The loops that are known now, for `list`. Before or after run(), or while it runs in another thread.
  std::vector<LoopListing> listing(uint64_t since_ns);
  /// Threads that polled and were not judged loops, with the reason.
  std::vector<std::string> not_loops();

  /// Some process matches, or none was asked for.
  bool has_targets() const { return targets_->any(); }

  /// Targets were named by their ids, and all of them have ended: no more can come, so the trace ends too.
  bool targets_ended() const { return targets_->ended(); }

  /// Only watches for `duration_ns`, with every poll seen; for `list`.
  void observe(uint64_t duration_ns, int signal_fd);

  const SummaryRecord& summary() const { return summary_; }

  /// Has run() end. Any thread.
  void stop();
  /// A signal has told run() to end, be it as the last of several reasons.
  bool interrupted() const { return interrupted_; }

  // For the conductor, in the worker.

  /// Detaches the hooks, and handles all that they have sent. What is known of loops and processes stays.
  void pause();
  /// Attaches them again, and gives up the loops that ended meanwhile.
  Result<void> resume();
  bool attached() const { return engine_->attached(); }
  uint64_t attached_since() const { return attached_since_; }  ///< CLOCK_REALTIME
  /// Some loop is in an iteration that began before this time.
  bool busy_since_before(uint64_t monotonic_ns) const;
  /// Ends the account of stalls that began before this time and go on: each is emitted, closed, `ended_by`
  /// window. Returns how many.
  uint64_t cut_stalls(uint64_t began_before_ns);
  void set_threshold(uint64_t threshold_ns);
  void set_captures(Engine::Captures captures);
  void set_source_lines(bool on) { symbolizer_->set_source_lines(on); }
  /// Forgets what can be read anew: symbols, lines.
  /// Gives back what can be read again; all of it where the hooks are off.
  void release_memory();
  /// Resident memory of the process, and kernel memory of its BPF maps.
  uint64_t memory_bytes() const;
  /// Events lost so far, by reason; counts only what happened.
  std::map<std::string, uint64_t> losses();
  uint64_t loops_known() const;
  double take_ring_peak() { return engine_->take_ring_peak(); }
  /// Asks for a mark behind all that the kernel has sent by now, and returns its number; barriers() tells
  /// which one was reached. The hooks must be attached; pause() handles everything anyway.
  uint64_t ask_for_barrier();
  uint64_t barriers() const { return barriers_; }
  /// Has the kernel measure the BPF programs' run time, or not; false if it may not be asked to.
  bool measure_bpf(bool on) { return engine_->measure_run_time(on); }
  uint64_t bpf_run_ns() const { return engine_->run_time_ns(); }
  void warn(std::string code, std::string message);

 private:
  Result<void> start_record();
  void make_parts();
  void prepare_processes();
  void start_threads();
  void read_ring(std::stop_token stop);
  void stop_reader();  ///< after it has read all that is in the ring
  void work(std::stop_token stop);
  void handle(const Message& message);
  void handle_record(std::span<const std::byte> bytes);
  void loop_found(const lt_loop_event& event);
  void loop_gone(const lt_loop_event& event);
  void end_loop(LoopState& loop, uint64_t generation);
  LoopState* loop_at(uint32_t slot, uint64_t generation);
  void process_changed(const lt_process_event& event);
  void look_for_targets(uint64_t now);
  void look_for_parked_workers(uint64_t now);
  void look_at_lone_polls();
  void want_files(const ProcessModules& modules, uint64_t poll_ip);
  void housekeeping(uint64_t now);
  void reconcile();
  void forget_gone();
  uint64_t until_next_step() const;
  void conduct(bool last);
  void end_interval(uint64_t now);
  void report_drops();
  void fill_summary();
  void check(const Result<void>& result);

  TraceConfig config_;
  Sink& sink_;
  ProcFs procfs_;
  // The parts that setup() makes, each from those before it.
  std::unique_ptr<Matcher> matcher_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TargetSet> targets_;
  std::unique_ptr<ProcessTable> processes_;
  std::unique_ptr<Symbolizer> symbolizer_;
  std::unique_ptr<StackBuilder> stacks_;
  std::unique_ptr<Assembler> assembler_;
  std::unique_ptr<Captures> captures_;
  std::unique_ptr<SharedPollers> shared_pollers_;
  std::unique_ptr<StallReporter> stalls_;
  std::unique_ptr<LoopRecords> loop_records_;
  std::unique_ptr<Watcher> watcher_;
  MessageQueue queue_;

  std::vector<LoopState> loops_;  // by slot
  ParkedWorkersDue parked_due_;
  std::map<std::string, uint64_t> reported_drops_;
  uint64_t start_ns_ = 0;
  uint64_t last_housekeeping_ns_ = 0, idle_dropped_ns_ = 0;
  uint64_t attached_since_ = 0;
  std::atomic<uint64_t> barrier_asked_{0};
  uint64_t barriers_ = 0;
  bool interrupted_ = false;
  bool conducted_ = false;     // to its end
  uint64_t next_step_ns_ = 0;  // when the conductor wants to be asked
  uint64_t stalls_gone_ = 0;   // of loops whose slot was freed
  uint64_t unconfirmed_gone_ = 0;
  uint64_t loops_gone_ = 0;
  uint64_t events_lost_ = 0;
  QueueLosses queue_losses_;
  std::atomic<bool> reopen_{false};
  std::function<Result<void>()> reopen_output_;
  std::optional<Error> failure_;
  WakeUp end_wanted_;    // run() sleeps on it, also for the worker's end
  WakeUp drain_wanted_;  // the reader sleeps on it
  std::atomic<bool> worker_done_{false};
  SummaryRecord summary_;
  std::jthread reader_, worker_;
};

}  // namespace looptrace
