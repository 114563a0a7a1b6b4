// SPDX-License-Identifier: Apache-2.0
#include "record/culprit.h"

#include <algorithm>
#include <vector>

namespace looptrace {
namespace {

// A stripped program still has a culprit: its module and offset.
bool can_be_looked_up(const Frame& frame) { return !frame.function.empty() || !frame.module.empty(); }

// The C start-up code is linked into the program, yet nobody wrote it.
bool is_startup(const Frame& frame) { return frame.function == "_start"; }

bool is_own_code(const Frame& frame) {
  return frame.kind != FrameKind::kernel && frame.origin == FrameOrigin::application &&
         can_be_looked_up(frame) && !is_startup(frame);
}

// A name tells more than the offset of a static function that is called by it; C's main() tells nothing, a
// stub to call into another object little.
bool is_named_own_code(const Frame& frame) {
  const bool is_c_main = frame.kind == FrameKind::native && frame.function == "main";
  return is_own_code(frame) && !frame.function.empty() && !is_c_main && !frame.function.ends_with("@plt");
}

bool is_named(const Frame& frame) { return frame.kind != FrameKind::kernel && !frame.function.empty(); }

// Everybody waits in read() and allocates in malloc(): who called it says more.
bool is_c_library(const Frame& frame) {
  return frame.module.starts_with("libc.") || frame.module.starts_with("libc-") ||
         frame.module.starts_with("libpthread") || frame.module.starts_with("ld-") ||
         frame.module.starts_with("[vdso");
}

bool is_named_outside_c_library(const Frame& frame) { return is_named(frame) && !is_c_library(frame); }

std::optional<size_t> find_frame(const Stack& stack) {
  for (const auto& wanted : {is_named_own_code, is_own_code, is_named_outside_c_library, is_named}) {
    const auto found = std::find_if(stack.frames.begin(), stack.frames.end(), wanted);
    if (found != stack.frames.end()) return static_cast<size_t>(found - stack.frames.begin());
  }
  return std::nullopt;
}

// True for a stack on which only waits of other causes were seen.
std::vector<bool> stacks_of_other_waits(const Stall& stall) {
  std::vector<bool> other(stall.stacks.size(), false);
  for (const bool same_cause : {false, true}) {
    for (const Wait& wait : stall.waits) {
      if ((wait.cause == stall.cause) == same_cause && wait.stack && *wait.stack < other.size()) {
        other[*wait.stack] = !same_cause;
      }
    }
  }
  return other;
}

/// A line of a function, with the time of all stacks that lead to it.
struct SuspectLine {
  CulpritPlace place;  ///< on the heaviest of them
  int line;
  uint64_t weight_ns;
};

/// A function to change.
struct Suspect {
  std::vector<SuspectLine> lines;
  uint64_t weight_ns;
  bool other;  ///< seen only in waits of other causes

  void add(const SuspectLine& seen) {
    weight_ns += seen.weight_ns;
    const auto known = std::find_if(lines.begin(), lines.end(),
                                    [&](const SuspectLine& known) { return known.line == seen.line; });
    if (known == lines.end()) {
      lines.push_back(seen);
    } else {
      known->weight_ns += seen.weight_ns;
    }
  }
};

bool same_function(const Frame& a, const Frame& b) {
  if (a.function.empty() && a.offset != b.offset) return false;
  return a.function == b.function && a.file == b.file && a.module == b.module;
}

}  // namespace

StackState part_of(Cause cause) {
  switch (cause) {
    case Cause::cpu:
    case Cause::gc:
      return StackState::on_cpu;
    case Cause::runqueue:
    case Cause::throttled:
      return StackState::runqueue;
    default:
      return StackState::blocked;
  }
}

std::optional<CulpritPlace> choose_culprit(const Stall& stall) {
  std::vector<size_t> order;
  for (size_t i = 0; i < stall.stacks.size(); ++i) {
    if (stall.stacks[i].state == part_of(stall.cause)) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return stall.stacks[a].weight_ns > stall.stacks[b].weight_ns; });
  const std::vector<bool> other = stacks_of_other_waits(stall);
  std::vector<Suspect> suspects;
  for (const size_t i : order) {
    const auto frame = find_frame(stall.stacks[i]);
    if (!frame) continue;
    const Frame& here = stall.stacks[i].frames[*frame];
    auto known = std::find_if(suspects.begin(), suspects.end(), [&](const Suspect& s) {
      const CulpritPlace& there = s.lines.front().place;
      return s.other == other[i] && same_function(stall.stacks[there.stack].frames[there.frame], here);
    });
    if (known == suspects.end()) known = suspects.insert(known, Suspect{{}, 0, other[i]});
    known->add({{i, *frame}, here.line, stall.stacks[i].weight_ns});
  }
  const auto worst =
      std::max_element(suspects.begin(), suspects.end(), [](const Suspect& a, const Suspect& b) {
        return a.other != b.other ? a.other : a.weight_ns < b.weight_ns;
      });
  if (worst == suspects.end()) return std::nullopt;
  return std::max_element(
             worst->lines.begin(), worst->lines.end(),
             [](const SuspectLine& a, const SuspectLine& b) { return a.weight_ns < b.weight_ns; })
      ->place;
}

}  // namespace looptrace
