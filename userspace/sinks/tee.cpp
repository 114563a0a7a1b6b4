// SPDX-License-Identifier: Apache-2.0
#include "sinks/tee.h"

#include <utility>

namespace looptrace {

TeeSink::TeeSink(Sink& main, std::vector<SideSink*> sides, std::vector<Lossy*> lossy)
    : main_(main), sides_(std::move(sides)), lossy_(std::move(lossy)) {
  for (const Lossy* l : lossy_) {
    for (const auto& [reason, n] : l->told_) before_[reason] += n;
  }
}

template <typename Record>
Result<void> TeeSink::hand_on(Result<void> (Sink::*method)(const Record&), const Record& record,
                              uint64_t time_ns) {
  for (SideSink* side : sides_) {
    auto done = (side->*method)(record);
    if (done) {
      failing_.erase(side);
    } else if (failing_.insert(side).second) {
      const WarningRecord failed{time_ns, std::string(side->name()) + "_failed", done.error().message()};
      if (auto told = main_.warning(failed); !told) return told;
    }
  }
  return (main_.*method)(record);
}

Result<void> TeeSink::start(const StartRecord& record) {
  return hand_on(&Sink::start, record, record.time_ns);
}

Result<void> TeeSink::stall(const Stall& record) {
  return hand_on(&Sink::stall, record, record.time_ns + record.duration_ns);
}

Result<void> TeeSink::loop(const LoopRecord& record) { return hand_on(&Sink::loop, record, record.time_ns); }

Result<void> TeeSink::window(const WindowRecord& record) {
  return hand_on(&Sink::window, record, record.time_ns);
}

Result<void> TeeSink::warning(const WarningRecord& record) {
  return hand_on(&Sink::warning, record, record.time_ns);
}

Result<void> TeeSink::tell_losses(const std::map<std::string, uint64_t>& dropped, bool last,
                                  uint64_t time_ns) {
  for (const auto& [reason, n] : dropped) {
    uint64_t& told = told_[reason];
    // Whoever loses something each interval is not told each interval.
    if (n == told || (n < 2 * told && !last)) continue;
    const WarningRecord lost{time_ns, reason,
                             std::to_string(n - told) + " more lost, " + std::to_string(n) + " in all"};
    told = n;
    if (auto done = warning(lost); !done) return done;
  }
  return {};
}

Result<void> TeeSink::summary(const SummaryRecord& record) {
  std::map<std::string, uint64_t> dropped;
  for (Lossy* lossy : lossy_) {
    if (record.final && !std::exchange(lossy->stays_open_, false)) lossy->finish();
    lossy->told_ = lossy->dropped();
    for (const auto& [reason, n] : lossy->told_) dropped[reason] += n;
  }
  for (const auto& [reason, n] : before_) {
    if ((dropped[reason] -= n) == 0) dropped.erase(reason);
  }
  if (auto told = tell_losses(dropped, record.final, record.time_ns); !told) return told;
  SummaryRecord whole = record;
  whole.dropped.merge(dropped);
  return hand_on(&Sink::summary, whole, record.time_ns);
}

}  // namespace looptrace
