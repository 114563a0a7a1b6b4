// SPDX-License-Identifier: Apache-2.0
#include "sinks/stall_json.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <numeric>
#include <utility>
#include <vector>

#include "record/culprit.h"
#include "record/format.h"
#include "sinks/fit.h"
#include "sinks/json_parts.h"
#include "sinks/json_writer.h"

namespace looptrace {
namespace {

constexpr size_t kAll = SIZE_MAX;
constexpr size_t kLeafFrames = 20, kOuterFrames = 5, kShortWaits = 3;
// Longer than every text that is not free (schema, time, kinds), short enough for six of them in 1 KiB.
constexpr size_t kShortestText = 48;

struct StallCuts {
  const Stall* stall;
  size_t stacks = kAll;  // how many to keep, by preferred_stacks()
  size_t waits = kAll;
  bool middle_frames = true;
  bool holder_frames = true;
  bool command_line = true;
  bool message = true;
  bool context = true;  // who and where beyond what is required
  size_t text_limit = kAll;
  size_t longest_text = 0;  // of the last rendering
};

// Positions of the stacks that outlast the others first: the culprit's, then the heaviest.
std::vector<size_t> preferred_stacks(const Stall& stall) {
  std::vector<size_t> order(stall.stacks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return stall.stacks[a].weight_ns > stall.stacks[b].weight_ns; });
  if (const auto culprit = choose_culprit(stall)) {
    std::stable_partition(order.begin(), order.end(), [&](size_t i) { return i == culprit->stack; });
  }
  return order;
}

// Positions of the stacks to write, in the record's own order.
std::vector<size_t> kept_stacks(const StallCuts& cuts) {
  const Stall& stall = *cuts.stall;
  std::vector<size_t> kept;
  if (cuts.stacks >= stall.stacks.size()) {
    kept.resize(stall.stacks.size());
    std::iota(kept.begin(), kept.end(), size_t{0});
  } else if (cuts.stacks > 0) {
    kept = preferred_stacks(stall);
    kept.resize(cuts.stacks);
    std::sort(kept.begin(), kept.end());
  }
  return kept;
}

void write_frame_fields(JsonWriter& json, const Frame& frame) {
  json.field("function", frame.function);
  json.field("file", frame.file);
  if (frame.line > 0) json.field("line", frame.line);
  json.field("module", frame.module);
  if (frame.offset) {
    std::array<char, 19> offset;
    const int n = std::snprintf(offset.data(), offset.size(), "0x%" PRIx64, frame.offset);
    json.field("offset", std::string_view(offset.data(), static_cast<size_t>(n)));
  }
  json.field("build_id", frame.build_id);
  json.field("kind", frame_kind_name(frame.kind));
  if (frame.guessed) json.field("guessed", true);
  if (frame.at_definition) json.field("at_definition", true);
}

void write_stack(JsonWriter& json, const Stack& stack, bool with_middle) {
  json.begin_object();
  json.field("state", stack_state_name(stack.state));
  json.field("weight_ns", stack.weight_ns);
  json.field("samples", stack.samples);
  if (stack.truncated) json.field("incomplete", true);
  const size_t n = stack.frames.size();
  const bool cut = !with_middle && n > kLeafFrames + kOuterFrames;
  if (cut) json.field("frames_dropped", uint64_t{n - kLeafFrames - kOuterFrames});
  json.begin_array("frames");
  for (size_t i = 0; i < n; ++i) {
    if (cut && i >= kLeafFrames && i < n - kOuterFrames) continue;
    json.begin_object();
    write_frame_fields(json, stack.frames[i]);
    json.end_object();
  }
  json.end_array();
  json.end_object();
}

void write_target(JsonWriter& json, const WaitTarget& target) {
  json.begin_object("target");
  json.field("kind", target.kind);
  json.field("fd", target.fd);
  json.field("path", target.path);
  json.field("local", target.local);
  json.field("peer", target.peer);
  json.field("pid", target.pid);
  if (target.address) {
    std::array<char, 19> address;
    const int n = std::snprintf(address.data(), address.size(), "0x%" PRIx64, *target.address);
    json.field("address", std::string_view(address.data(), static_cast<size_t>(n)));
  }
  json.end_object();
}

void write_holder(JsonWriter& json, const Holder& holder, bool with_frames) {
  json.begin_object("held_by");
  json.field("pid", holder.thread.pid);
  json.field("tid", holder.thread.tid);
  json.field("comm", holder.thread.comm);
  if (with_frames && !holder.frames.empty()) {
    json.begin_array("frames");
    for (const Frame& frame : holder.frames) {
      json.begin_object();
      write_frame_fields(json, frame);
      json.end_object();
    }
    json.end_array();
  }
  json.end_object();
}

void write_wait(JsonWriter& json, const Wait& wait, const std::vector<size_t>& kept, bool holder_frames) {
  json.begin_object();
  json.field("cause", cause_name(wait.cause));
  json.field("syscall", wait.syscall);
  json.field("count", wait.count);
  json.field("duration_ns", wait.duration_ns);
  json.field("longest_ns", wait.longest_ns);
  if (wait.target) write_target(json, *wait.target);
  write_peer(json, "woken_by", wait.woken_by);
  if (wait.held_by) write_holder(json, *wait.held_by, holder_frames);
  if (wait.stack) {
    const auto place = std::lower_bound(kept.begin(), kept.end(), *wait.stack);
    if (place != kept.end() && *place == *wait.stack) json.field("stack", uint64_t(place - kept.begin()));
  }
  json.end_object();
}

void write_what_it_waited_for(JsonWriter& json, const StallCuts& cuts) {
  const Stall& stall = *cuts.stall;
  const std::vector<size_t> kept = kept_stacks(cuts);
  const size_t waits = std::min(cuts.waits, stall.waits.size());
  if (waits) {
    json.begin_array("waits");
    for (size_t i = 0; i < waits; ++i) write_wait(json, stall.waits[i], kept, cuts.holder_frames);
    json.end_array();
  }
  if (stall.waits_dropped) json.field("waits_dropped", stall.waits_dropped);
  if (!kept.empty()) {
    json.begin_array("stacks");
    for (const size_t i : kept) write_stack(json, stall.stacks[i], cuts.middle_frames);
    json.end_array();
  }
}

void write_times(JsonWriter& json, const Stall& stall) {
  json.field("duration_ns", stall.duration_ns);
  json.field("threshold_ns", stall.threshold_ns);
  if (stall.start_uncertain_ns) json.field("start_uncertain_ns", stall.start_uncertain_ns);
  json.begin_object("time_ns");
  json.field("on_cpu", stall.on_cpu_ns);
  json.field("runqueue", stall.runqueue_ns);
  json.field("blocked", stall.blocked_ns);
  json.end_object();
}

void write_task(JsonWriter& json, const TaskInfo& task) {
  json.begin_object("task");
  json.field("name", task.name);
  json.field("coroutine", task.coroutine);
  json.field("file", task.file);
  if (task.line > 0) json.field("line", task.line);
  json.field("handler", task.handler);
  if (task.created_at) {
    json.begin_object("created_at");
    json.field("function", task.created_at->function);
    json.field("file", task.created_at->file);
    if (task.created_at->line > 0) json.field("line", task.created_at->line);
    json.end_object();
  }
  json.end_object();
}

void write_cause(JsonWriter& json, const StallCuts& cuts) {
  const Stall& stall = *cuts.stall;
  json.begin_object("cause");
  json.field("kind", cause_name(stall.cause));
  json.field("confidence", confidence_name(stall.confidence));
  json.field("detail", stall.cause_detail);
  json.end_object();
  json.begin_object("shape");
  json.field("segments", stall.segments);
  json.field("longest_ns", stall.longest_segment_ns);
  json.end_object();
  if (stall.culprit && cuts.context) {
    json.begin_object("culprit");
    write_frame_fields(json, *stall.culprit);
    json.end_object();
  }
  if (stall.task && cuts.context) write_task(json, *stall.task);
  if (cuts.context) write_peer(json, "preempted_by", stall.preempted_by);
}

// The least that tells whose stall it is.
void write_names(JsonWriter& json, const Stall& stall) {
  ProcessInfo process;
  process.pid = stall.process.pid;
  process.comm = stall.process.comm;
  write_process(json, process, false);
  write_thread(json, stall.thread_id, "");
}

void render(std::string& line, StallCuts& cuts, const HostInfo& host, const Truncated& truncated) {
  const Stall& stall = *cuts.stall;
  line.clear();
  JsonWriter json(line, cuts.text_limit);
  json.begin_object();
  json.field("schema", "looptrace.stall/1");
  json.field("id", stall.id);
  json.field("state", stall.state == StallState::open ? "open" : "closed");
  json.field("ended_by", stall.ended_by);
  json.field("time", format_time(stall.time_ns));
  json.field("severity", severity_name(severity_of(stall)));
  if (cuts.message) json.field("message", stall_message(stall));
  if (cuts.context) {
    write_host(json, host);
    write_process(json, stall.process, cuts.command_line);
    write_thread(json, stall.thread_id, stall.thread_name);
    write_container(json, stall.container);
    write_service(json, stall.service);
  } else {
    write_names(json, stall);
  }
  write_loop(json, stall.loop);
  write_times(json, stall);
  write_cause(json, cuts);
  write_what_it_waited_for(json, cuts);
  json.field("fingerprint", stall.fingerprint);
  json.begin_object("sample");
  json.field("weight", stall.sample_weight);
  if (stall.sample) {
    json.field("window", stall.sample->window);
    json.field("probability", stall.sample->probability);
  }
  json.end_object();
  write_truncated(json, truncated);
  json.end_object();
  line += '\n';
  cuts.longest_text = json.longest_text();
}

bool has_long_stack(const Stall& stall) {
  return std::any_of(stall.stacks.begin(), stall.stacks.end(),
                     [](const Stack& stack) { return stack.frames.size() > kLeafFrames + kOuterFrames; });
}

bool has_holder_frames(const Stall& stall) {
  return std::any_of(stall.waits.begin(), stall.waits.end(),
                     [](const Wait& wait) { return wait.held_by && !wait.held_by->frames.empty(); });
}

bool keep_waits(StallCuts& cuts, size_t n) {
  if (std::min(cuts.waits, cuts.stall->waits.size()) <= n) return false;
  cuts.waits = n;
  return true;
}

bool keep_stacks(StallCuts& cuts, size_t n) {
  if (std::min(cuts.stacks, cuts.stall->stacks.size()) <= n) return false;
  cuts.stacks = n;
  return true;
}

bool unset(bool& part) { return std::exchange(part, false); }

constexpr CutStep<StallCuts> kSteps[] = {
    {"stacks", [](StallCuts& c) { return keep_stacks(c, 8); }},
    {"stacks", [](StallCuts& c) { return keep_stacks(c, 4); }},
    {"stacks", [](StallCuts& c) { return keep_stacks(c, 2); }},
    {"stacks", [](StallCuts& c) { return keep_stacks(c, 1); }},
    {"stacks.frames", [](StallCuts& c) { return has_long_stack(*c.stall) && unset(c.middle_frames); }},
    {"texts", [](StallCuts& c) { return shorten_texts(c, 512); }},
    {"texts", [](StallCuts& c) { return shorten_texts(c, 200); }},
    {"waits.held_by.frames",
     [](StallCuts& c) { return has_holder_frames(*c.stall) && unset(c.holder_frames); }},
    {"waits", [](StallCuts& c) { return keep_waits(c, kShortWaits); }},
    {"process.command_line",
     [](StallCuts& c) { return !c.stall->process.command_line.empty() && unset(c.command_line); }},
    {"message", [](StallCuts& c) { return unset(c.message); }},
    {"texts", [](StallCuts& c) { return shorten_texts(c, 80); }},
    {"stacks", [](StallCuts& c) { return keep_stacks(c, 0); }},
    {"waits", [](StallCuts& c) { return keep_waits(c, 0); }},
    {"context", [](StallCuts& c) { return unset(c.context); }},
    {"texts", [](StallCuts& c) { return shorten_texts(c, kShortestText); }},
};

}  // namespace

void write_stall(std::string& line, const Stall& stall, const HostInfo& host, size_t max_line) {
  fit_line<StallCuts>(line, std::max(max_line, kLeastMaxLine), StallCuts{&stall}, kSteps,
                      [&](std::string& out, StallCuts& cuts, const Truncated& truncated) {
                        render(out, cuts, host, truncated);
                      });
}

}  // namespace looptrace
