// SPDX-License-Identifier: Apache-2.0
#include "trace/loop_listing.h"

#include <algorithm>
#include <utility>

#include "trace/clock.h"
#include "trace/slot_view.h"

namespace looptrace {

std::vector<LoopListing> list_loops(std::span<const LoopState> loops, Engine& engine, ProcessTable& processes,
                                    uint64_t elapsed_ns) {
  std::vector<LoopListing> out;
  const uint64_t now = monotonic_ns();
  for (const LoopState& loop : loops) {
    if (!loop.tid || loop.silent()) continue;
    const auto s = snapshot(engine.slot(loop.slot));
    if (!s || !looks_like_loop(*s) || s->generation != loop.generation) continue;
    const lt_stats& stats = engine.stats(loop.slot);
    const TracedProcess& process = processes.get(loop.tgid, s->start_boottime);
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

std::vector<std::string> list_others(std::span<const LoopState> loops, Engine& engine) {
  std::vector<std::string> out;
  for (const LoopState& loop : loops) {
    if (!loop.tid) continue;
    const lt_slot& s = engine.slot(loop.slot);
    if (looks_like_loop(s) && !loop.silent()) continue;
    std::string why = loop.ignored ? "not selected" : "";
    if (loop.polls && !loop.polls->no_loop.empty()) why = loop.polls->no_loop;
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
