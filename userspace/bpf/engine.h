// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "looptrace.h"

namespace looptrace {

enum class HookPolicy {
  automatic,  ///< fentry if it loads, else a probe while a loop is suspect, or the tracepoints for a while
  always,     ///< fentry if it loads, else the polls' tracepoints all the time
  never,      ///< hookless: apparent iterations are believed
};

/// Knobs that are fixed once the programs are loaded.
struct EngineOptions {
  uint64_t threshold_ns = 50'000'000;
  HookPolicy hook = HookPolicy::automatic;
  bool every_process = false;     ///< no target was named
  bool follow_forks = false;      ///< children of targets are targets
  bool report_processes = false;  ///< exec and fork of any process reach the callback
  bool report_renames = false;
  bool report_cgroups =
      false;  ///< a process that moves to another cgroup is reported as if it had called exec
  bool stacks = true;
  bool try_fentry = true;           ///< features.h has found it to work: loading in vain costs 60 ms
  uint32_t max_loops = 1024;        ///< 4.3 KB of kernel memory each
  uint32_t ring_bytes = 8u << 20;   ///< a power of two, at least a page
  uint64_t row_bytes = 256u << 20;  ///< kernel memory for unwind tables, at most
  uint32_t sample_hz = 0;  ///< 0: the timer tick, or cpu-clock where the threshold is too short for it
};

/// Owns the loaded BPF object from load to detach: knobs, memory shared with the kernel, poll hooks,
/// tables, ring. Wraps lifetimes and layouts, takes no decisions. The kernel detaches everything when
/// the process ends, however it ends.
///
/// Threads: consume() belongs to one thread; probes and wakers to one (perhaps other) thread; tables and
/// targets to one (perhaps third). Slots are written by the kernel at any time: copy, then check
/// `generation` and `switches`.
class Engine {
 public:
  static Result<std::unique_ptr<Engine>> load(const EngineOptions& options);
  ~Engine();

  /// Attaches the scheduler, process and sampling programs, and the hooks that stay for good. After a
  /// detach() slots keep which poll is their loop's, and nothing else: what each thread did meanwhile is not
  /// known, and its account begins anew with its next poll.
  Result<void> attach();
  /// Detaches everything. The programs stay loaded, the tables filled, what was counted and sent where it is.
  void detach();
  bool attached() const;

  /// Knobs that may be turned while tracing.
  void set_threshold(uint64_t threshold_ns);
  enum class Captures { all, few, none };
  void set_captures(Captures captures);

  /// Ends the account at this moment: no stall is counted or sent from here on. What was counted is in the
  /// ring.
  void close();

  /// The threads of a process that sleep in an epoll wait or a futex now; none where that cannot be told.
  std::vector<lt_waiting> waiting_threads(uint32_t tgid);
  /// A thread that waits in a futex where, had it the turn, it would poll `epoll_fd`.
  struct Parked {
    uint32_t tid;
    uint64_t sp;  ///< of the wait
    int32_t epoll_fd;
  };
  /// Finds the threads of targets that sleep in a poll now, and counts those that have slots. Call after
  /// attach(), when the targets are known. Of `parked`, those that are still there are loops, too.
  Result<void> find_sleepers(std::span<const Parked> parked = {});
  /// The last find_sleepers() met the slot's thread, running the same program as ever.
  bool was_counted(uint32_t index) const;

  /// True if the poll hooks are fentry programs: exact and free.
  bool uses_fentry() const;
  /// True if every poll is seen all the time: no probes are needed.
  bool hooks_permanent() const;

  /// Attaches the probe that sees every poll of the host; 0.2 ms. Each loop's first poll in a probe is
  /// reported with a wake-up. No-op if attached, or if the hooks are permanent.
  Result<void> start_probe();
  void stop_probe();
  bool probing() const;
  /// Attaches the polls' tracepoints, which see all that a probe sees: dear to come and go, they cost every
  /// system call of the host a quarter of what a probe does. They take the place of a probe. False, and
  /// nothing is done, while those of the last time are still going.
  Result<bool> hold_hooks();
  void release_hooks();
  bool holding() const;
  /// Attaches or detaches the wake-up program (who ended a wait).
  Result<void> watch_wakers(bool on);

  /// The time since which every poll is seen, 0 = they are not.
  uint64_t hook_since() const;
  /// Total time during which every poll was seen, up to `now` (CLOCK_MONOTONIC ns).
  uint64_t hooked_ns(uint64_t now) const;

  /// Hands each pending ring record to `on_record`. Returns how many.
  using OnRecord = std::function<void(std::span<const std::byte>)>;
  int consume(const OnRecord& on_record);
  /// How full the ring was at most when it was read since the last call: 0 = empty, 1 = full. Any thread.
  double take_ring_peak();
  int ring_fd() const;  ///< readable when a record asked for a wake-up

  uint32_t slot_count() const;
  lt_slot& slot(uint32_t index);
  const lt_stats& stats(uint32_t index) const;
  std::span<const uint64_t> pulses() const;  ///< start of each loop's open iteration, 0 = none
  /// Clears a slot whose loop is gone and lets the kernel use it again.
  void free_slot(uint32_t index);

  Result<void> add_target(uint32_t tgid);
  void remove_target(uint32_t tgid);
  bool is_target(uint32_t tgid) const;

  /// Makes the rows of some files available to captures. Returns each one's table for lt_module; its file is
  /// 0 if there are no rows, and where there is no room. All at once, since the kernel waits for an RCU grace
  /// period (15 ms) at each update of such a map.
  Result<std::vector<lt_row_table>> add_rows(std::span<const std::vector<lt_row>* const> files);
  void remove_rows(uint32_t file);
  /// Gives captures of a process its modules and interpreter. Replaces what was given before.
  Result<void> set_process(uint32_t tgid, const std::vector<lt_module>& modules, lt_process process);
  /// The interpreter alone: more has become known of it. No effect for a process that was not given.
  void set_interpreter(uint32_t tgid, const lt_py_config& python);
  void clear_process(uint32_t tgid);

  /// Kernel memory of the maps; and what of them is mapped here, so that it counts as resident as well, the
  /// ring twice.
  uint64_t map_bytes() const;
  uint64_t mapped_bytes() const;

  /// Events lost in the kernel since load, by enum lt_drop.
  /// All but LT_DROP_HOOK_MISSED.
  std::array<uint64_t, LT_NR_DROPS> drops() const;
  /// How often the kernel did not run one of the programs. A system call for each of them.
  uint64_t hooks_missed() const;
  /// Has the kernel measure run times while `on` (or the process lives). False without CAP_SYS_ADMIN.
  bool measure_run_time(bool on);
  /// Sum of the programs' run time, if measured, or if kernel.bpf_stats_enabled is on; else 0.
  uint64_t run_time_ns() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The reason behind each drop counter, as it appears in records.
const char* drop_name(lt_drop reason);

}  // namespace looptrace
