// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "bpf/engine.h"
#include "record/other_records.h"
#include "trace/assembler.h"
#include "trace/processes.h"

namespace looptrace {

/// Makes the loops' interval records: what each did since its last one, exactly. The worker's. Times are
/// CLOCK_MONOTONIC.
class LoopRecords {
 public:
  using Emit = std::function<void(const LoopRecord&)>;
  LoopRecords(Engine& engine, ProcessTable& processes, Emit emit)
      : engine_(engine), processes_(processes), emit_(std::move(emit)) {}

  /// An interval begins, and nothing is told of what was before.
  void begin(uint64_t now_ns);
  /// Ends the interval with a record of each loop, and begins the next.
  void end(std::span<LoopState> loops, uint64_t now_ns);
  /// The loop is gone: what it did in this interval.
  void last_of(LoopState& loop, uint64_t now_ns);
  /// The hooks were detached, and are attached again. What had passed of an iteration that was open then was
  /// told, but will never be counted.
  void go_on(std::span<LoopState> loops, uint64_t now_ns);

  uint64_t began_ns() const { return began_ns_; }

 private:
  void emit(LoopState& loop, uint64_t now_ns, uint64_t hooked_ns);

  Engine& engine_;
  ProcessTable& processes_;
  const Emit emit_;
  uint64_t began_ns_ = 0;
  uint64_t hooked_before_ns_ = 0;  // Engine::hooked_ns() at its beginning
};

}  // namespace looptrace
