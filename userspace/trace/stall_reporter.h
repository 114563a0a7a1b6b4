// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "bpf/engine.h"
#include "record/stall.h"
#include "trace/assembler.h"
#include "trace/captures.h"
#include "trace/processes.h"
#include "trace/shared_pollers.h"

namespace looptrace {

/// Makes stall records: of iterations that the kernel has closed, of those that go on, of those that are
/// given up. Each iteration has one id, whatever is told of it. The worker's.
class StallReporter {
 public:
  struct Options {
    uint64_t threshold_ns;
    bool believes_apparent;  ///< no iteration is taken for several short ones (any --hook but auto)
    std::optional<uint64_t> max_stalls;
    std::string id_prefix;
  };
  using Emit = std::function<void(const Stall&)>;

  StallReporter(Options options, Engine& engine, ProcFs procfs, ProcessTable& processes, Assembler& assembler,
                Captures& captures, SharedPollers& shared_pollers, Emit emit);

  /// The iteration of `loop` has ended, and was a stall. Null: the loop is not known (any more), which is
  /// counted.
  void closed(LoopState* loop, const lt_stall& record);
  /// The iteration of `loop` that began then may have passed a mark (1, 10, 100 ... thresholds). Returns up
  /// to which it is dealt with: UINT64_MAX for good, 0 = ask again.
  uint64_t open(LoopState& loop, uint64_t start_ns);
  /// Ends the account of stalls that began before this time and go on: each is emitted, closed, `ended_by`
  /// window. Returns how many.
  uint64_t cut(std::span<LoopState> loops, uint64_t began_before_ns);

  void set_threshold(uint64_t threshold_ns) { options_.threshold_ns = threshold_ns; }

  uint64_t emitted() const { return emitted_; }  ///< closed ones
  bool has_enough() const { return options_.max_stalls && emitted_ >= *options_.max_stalls; }
  uint64_t parked() const { return parked_; }  ///< not told: workers that had nothing to do
  /// not told: of workers that were not known for workers yet, and may have stalled besides
  uint64_t parked_and_busy() const { return parked_and_busy_; }
  uint64_t orphans() const { return orphans_; }  ///< not told: of unknown loops

 private:
  struct Open {
    lt_slot booked;  ///< up to now
    lt_slot seen;    ///< as it was found
    uint64_t now_ns;
  };
  std::optional<Open> look_at(LoopState& loop, uint64_t start_ns);
  /// How long the thread waited for its turn, as a worker that polls when it gets it; 0 where that was not
  /// most of its waiting.
  uint64_t parked_ns(const LoopState& loop, const lt_slot& slot, const lt_iteration& it) const;
  bool polls_what_is_gone(const LoopState& loop, int32_t fd) const;
  Stall build(LoopState& loop, TracedProcess& process, const IterationView& view,
              const char (&comm)[LT_COMM_LEN], std::string id);
  void emit(const Stall& stall);
  /// That of its open records, if there were any.
  std::string id_of(const LoopState& loop, uint64_t seq) {
    return loop.open_seq == seq && !loop.open_id.empty() ? loop.open_id : next_id();
  }
  std::string next_id() { return options_.id_prefix + std::to_string(++ids_); }

  Options options_;
  Engine& engine_;
  ProcFs procfs_;
  ProcessTable& processes_;
  Assembler& assembler_;
  Captures& captures_;
  SharedPollers& shared_pollers_;
  const Emit emit_;
  uint64_t ids_ = 0;
  uint64_t emitted_ = 0;
  uint64_t parked_ = 0, parked_and_busy_ = 0;
  uint64_t orphans_ = 0;
};

}  // namespace looptrace
