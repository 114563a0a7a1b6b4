// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "sinks/sink.h"

namespace looptrace {

/// What waits for others behind a bounded queue, in a thread of its own, and so may lose records.
class Lossy {
 public:
  virtual ~Lossy() = default;
  /// What it has lost so far, by reason.
  virtual std::map<std::string, uint64_t> dropped() const = 0;
  /// Before the last summary: sends what it can still send, within a time of its own.
  virtual void finish() = 0;
  /// The summary that comes next is not its end: it goes on with the trace after this one.
  void stay_open() { stays_open_ = true; }

 private:
  friend class TeeSink;
  bool stays_open_ = false;
  // Of dropped(), what summaries have told; those of earlier traces, too.
  std::map<std::string, uint64_t> told_;
};

/// A sink beside the main one: metrics, an exporter. It must not hold up the one thread that calls it; one
/// that waits for others is Lossy, too.
class SideSink : public Sink {
 public:
  virtual const char* name() const = 0;
};

/// Hands each record to the sinks beside the main one, then to that. A failure of the former does not end the
/// trace: it is told in a warning, once until it works again.
///
/// It also adds the losses of the lossy to the summary, wherever they are: the summary tells all
/// that was lost since the last summary of the trace before. A warning goes before it at the first loss,
/// whenever that has doubled, and at the end.
class TeeSink : public Sink {
 public:
  /// All outlive it. The sides are called in their order.
  TeeSink(Sink& main, std::vector<SideSink*> sides, std::vector<Lossy*> lossy = {});

  Result<void> start(const StartRecord& record) override;
  Result<void> stall(const Stall& record) override;
  Result<void> loop(const LoopRecord& record) override;
  Result<void> window(const WindowRecord& record) override;
  Result<void> warning(const WarningRecord& record) override;
  Result<void> summary(const SummaryRecord& record) override;

 private:
  template <typename Record>
  Result<void> hand_on(Result<void> (Sink::*method)(const Record&), const Record& record, uint64_t time_ns);
  Result<void> tell_losses(const std::map<std::string, uint64_t>& dropped, bool last, uint64_t time_ns);

  Sink& main_;
  std::vector<SideSink*> sides_;
  std::vector<Lossy*> lossy_;
  std::set<const SideSink*> failing_;
  std::map<std::string, uint64_t> before_;  // told of the lossy by the traces before this one
  std::map<std::string, uint64_t> told_;
};

}  // namespace looptrace
