// SPDX-License-Identifier: Apache-2.0
#include "record/cause.h"

#include <algorithm>
#include <map>

namespace looptrace {
namespace {

uint64_t percent(uint64_t part, uint64_t whole) {
  return whole ? static_cast<uint64_t>(100.0 * static_cast<double>(part) / static_cast<double>(whole)) : 0;
}

// Where the code that ran has no name, its caller's stands for it within one program or library; else that
// file's.
std::string leaf_name(const Stack& stack) {
  const Frame* leaf = nullptr;
  for (const Frame& frame : stack.frames) {
    const bool kernel = frame.kind == FrameKind::kernel;
    if (frame.function.empty()) {
      if (!leaf && !kernel) leaf = &frame;
      continue;
    }
    if (leaf && leaf->module != frame.module) return leaf->module;
    return kernel ? frame.function + " (kernel)" : frame.function;
  }
  return leaf ? leaf->module : "";
}

// "83 % in json_dumps", of the time that samples stand for.
std::string describe_hottest(const Stall& stall, uint64_t sampled_ns) {
  std::map<std::string, uint64_t> weight_of;
  for (const Stack& stack : stall.stacks) {
    if (stack.state == StackState::on_cpu) weight_of[leaf_name(stack)] += stack.weight_ns;
  }
  weight_of.erase("");
  if (weight_of.empty() || !sampled_ns) return {};
  const auto hottest = std::max_element(weight_of.begin(), weight_of.end(),
                                        [](const auto& a, const auto& b) { return a.second < b.second; });
  return std::to_string(percent(hottest->second, sampled_ns)) + " % in " + hottest->first;
}

Verdict judge_on_cpu(const Stall& stall, const StallFacts& facts) {
  uint64_t sampled_ns = 0, gc_ns = 0;
  for (const Stack& stack : stall.stacks) {
    if (stack.state != StackState::on_cpu) continue;
    sampled_ns += stack.weight_ns;
    if (facts.is_gc && collects(stack.frames, facts.is_gc)) gc_ns += stack.weight_ns;
  }
  if (gc_ns > sampled_ns / 2) {
    return {Cause::gc, Confidence::inferred,
            std::to_string(percent(gc_ns, sampled_ns)) + " % of samples in the collector"};
  }
  return {Cause::cpu, Confidence::certain, describe_hottest(stall, sampled_ns)};
}

Verdict judge_runqueue(const Stall& stall, const StallFacts& facts) {
  if (facts.throttled_ns > stall.runqueue_ns / 2)
    return {Cause::throttled, Confidence::certain, "the cgroup's CPU quota was used up"};
  std::string detail = "runnable, but not given a CPU";
  if (stall.preempted_by) detail += " while " + describe_peer(*stall.preempted_by) + " ran";
  return {Cause::runqueue, Confidence::certain, detail};
}

Verdict verdict_of(const Wait& wait) {
  const bool known = wait.cause != Cause::other;
  return {wait.cause, known ? Confidence::certain : Confidence::unknown, describe_wait(wait)};
}

Verdict judge_blocked(const Stall& stall, const StallFacts& facts) {
  std::map<Cause, uint64_t> total_of;
  const bool judged = facts.waits.size() == stall.waits.size();
  const auto verdict = [&](size_t i) { return judged ? facts.waits[i] : verdict_of(stall.waits[i]); };
  for (size_t i = 0; i < stall.waits.size(); ++i) total_of[verdict(i).cause] += stall.waits[i].duration_ns;
  if (total_of.empty()) return {};
  const Cause cause = std::max_element(total_of.begin(), total_of.end(), [](const auto& a, const auto& b) {
                        return a.second < b.second;
                      })->first;
  std::optional<size_t> heaviest;
  for (size_t i = 0; i < stall.waits.size(); ++i) {
    if (verdict(i).cause != cause) continue;
    if (!heaviest || stall.waits[i].duration_ns > stall.waits[*heaviest].duration_ns) heaviest = i;
  }
  return verdict(*heaviest);
}

}  // namespace

bool collects(const std::vector<Frame>& frames, const FramePredicate& is_gc) {
  for (const Frame& frame : frames) {
    if (is_gc(frame)) return true;
    if (frame.kind == FrameKind::python || frame.kind == FrameKind::javascript) return false;
  }
  return false;
}

Verdict judge_stall(const Stall& stall, const StallFacts& facts) {
  // Of equal parts the one that names most wins: a wait names its call, a CPU its function.
  if (stall.blocked_ns && stall.blocked_ns >= std::max(stall.on_cpu_ns, stall.runqueue_ns)) {
    return judge_blocked(stall, facts);
  }
  if (stall.on_cpu_ns >= stall.runqueue_ns) return judge_on_cpu(stall, facts);
  return judge_runqueue(stall, facts);
}

}  // namespace looptrace
