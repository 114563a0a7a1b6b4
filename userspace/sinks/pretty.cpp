// SPDX-License-Identifier: Apache-2.0
#include "sinks/pretty.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "record/cause.h"
#include "record/culprit.h"
#include "record/format.h"
#include "sinks/paint.h"

namespace looptrace {
namespace {

constexpr size_t kLabel = 9;  // columns of "culprit  "
constexpr size_t kLongestBar = 30, kShortestBar = 10;
constexpr size_t kWaits = 3;       // shown; the rest is counted
constexpr size_t kLeafFrames = 8;  // shown of a stack before the culprit's neighbourhood
constexpr size_t kAroundCulprit = 2;
constexpr double kWorthTelling = 0.05;  // share of run queue from which who ran instead matters

// "2026-11-23 09:00:00.123Z": what a day's log needs.
std::string short_time(uint64_t realtime_ns) {
  std::string text = format_time(realtime_ns).substr(0, sizeof "2026-11-23T09:00:00.123" - 1);
  std::replace(text.begin(), text.end(), 'T', ' ');
  return text + 'Z';
}

std::string percent(double share) {
  std::array<char, 16> text;
  std::snprintf(text.data(), text.size(), "%.1f %%", 100 * share);
  return text.data();
}

double share_of(uint64_t part, uint64_t whole) {
  return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// Builds one stall's block row by row.
class Block {
 public:
  Block(const Stall& stall, const Terminal& terminal)
      : stall_(stall), terminal_(terminal), paint_(terminal.colours), culprit_(choose_culprit(stall)) {}

  std::string render() {
    title();
    times();
    culprit();
    task();
    for (size_t i = 0; i < std::min(kWaits, stall_.waits.size()); ++i) wait(stall_.waits[i]);
    if (stall_.waits.size() > kWaits) row("", std::to_string(stall_.waits.size() - kWaits) + " more waits");
    const bool queued = share_of(stall_.runqueue_ns, stall_.duration_ns) >= kWorthTelling;
    if (stall_.preempted_by && queued)
      row("instead", printable(describe_peer(*stall_.preempted_by)) + " ran");
    stack();
    return std::move(text_);
  }

 private:
  void title() {
    const Severity severity = severity_of(stall_);
    const Ink ink = severity == Severity::error  ? Ink::red
                    : severity == Severity::warn ? Ink::yellow
                                                 : Ink::bold;
    text_ += paint_(Ink::dim, short_time(stall_.time_ns)) + "  " +
             paint_(ink, printable(stall_message(stall_))) + '\n';
  }

  void times() {
    const std::string parts[] = {"on CPU " + part(stall_.on_cpu_ns), "run queue " + part(stall_.runqueue_ns),
                                 "blocked " + part(stall_.blocked_ns)};
    const std::string sum = parts[0] + "   " + parts[1] + "   " + parts[2];
    const size_t taken = columns(sum) + 2;
    if (taken + kShortestBar <= room()) {
      row("time", bar(std::min(room() - taken, kLongestBar)) + "  " + sum);
      return;
    }
    row("time", bar(std::min(room(), kLongestBar)));
    for (const std::string& text : parts) row("", text);
  }

  std::string part(uint64_t ns) const {
    return format_duration(ns) + " (" + percent(share_of(ns, stall_.duration_ns)) + ")";
  }

  std::string bar(size_t width) const {
    const auto cells = [&](uint64_t ns) {
      return static_cast<size_t>(std::lround(static_cast<double>(width) * share_of(ns, stall_.duration_ns)));
    };
    const size_t on_cpu = std::min(width, cells(stall_.on_cpu_ns));
    const size_t runqueue = std::min(width - on_cpu, cells(stall_.runqueue_ns));
    const size_t blocked = std::min(width - on_cpu - runqueue, cells(stall_.blocked_ns));
    return paint_(Ink::green, fill(on_cpu, "\u2588", "#")) +
           paint_(Ink::yellow, fill(runqueue, "\u2592", "=")) +
           paint_(Ink::cyan, fill(blocked, "\u2591", ".")) +
           std::string(width - on_cpu - runqueue - blocked, ' ');
  }

  std::string fill(size_t n, const char* unicode, const char* ascii) const {
    std::string out;
    for (size_t i = 0; i < n; ++i) out += terminal_.unicode ? unicode : ascii;
    return out;
  }

  void culprit() {
    if (!stall_.culprit) return;
    row("culprit",
        paint_(Ink::bold,
               shorten_middle(printable(name(*stall_.culprit) + "  " + place(*stall_.culprit)), room())));
  }

  void task() {
    if (!stall_.task) return;
    const TaskInfo& task = *stall_.task;
    std::string text = task.name;
    const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
    if (!task.coroutine.empty()) {
      const std::string line = task.line > 0 ? ":" + std::to_string(task.line) : "";
      add(task.coroutine + (task.file.empty() ? "" : "  " + task.file + line));
    }
    if (!task.handler.empty()) add("handler " + task.handler);
    row("task", shorten_middle(printable(text), room()));
    if (!task.created_at) return;
    const TaskInfo::Place& at = *task.created_at;
    const std::string made = "created in " + at.function + "  " + at.file + ":" + std::to_string(at.line);
    row("", shorten_middle(printable(made), room()));
  }

  void wait(const Wait& wait) {
    std::string what = describe_wait(wait);
    const bool names_waker = what.find(", woken by ") != what.npos;
    std::string text = what + "  " + format_duration(wait.duration_ns);
    if (wait.count > 1)
      text += " in " + std::to_string(wait.count) + ", longest " + format_duration(wait.longest_ns);
    if (wait.woken_by && !names_waker) text += ", woken by " + describe_peer(*wait.woken_by);
    const std::string cause = pad(cause_name(wait.cause), 10);
    row("wait", cause + " " + shorten_end(printable(text), room() - 11));
    if (wait.held_by) holder(*wait.held_by);
  }

  void holder(const Holder& holder) {
    std::string text = "held by " + describe_peer(holder.thread);
    const auto own = std::find_if(holder.frames.begin(), holder.frames.end(), [](const Frame& frame) {
      return frame.origin == FrameOrigin::application;
    });
    const auto at = own == holder.frames.end() ? holder.frames.begin() : own;
    if (at != holder.frames.end()) text += " in " + name(*at) + "  " + place(*at);
    row("", pad("", 11) + shorten_middle(printable(text), room() - 11));
  }

  void stack() {
    if (stall_.stacks.empty()) return;
    const Stack& stack = stall_.stacks[culprit_ ? culprit_->stack : 0];
    row("stack", std::string(state_text(stack.state)) + " " + format_duration(stack.weight_ns));
    const size_t n = stack.frames.size();
    const size_t marked = culprit_ ? culprit_->frame : 0;
    size_t hidden = 0;
    for (size_t i = 0; i < n; ++i) {
      const bool near = culprit_ && i + kAroundCulprit >= marked && i <= marked + kAroundCulprit;
      if (i >= kLeafFrames && !near) {
        ++hidden;
        continue;
      }
      skipped(hidden);
      hidden = 0;
      frame(stack.frames[i], culprit_ && i == marked);
    }
    skipped(hidden);
  }

  static const char* state_text(StackState state) {
    switch (state) {
      case StackState::on_cpu:
        return "on CPU";
      case StackState::blocked:
        return "blocked";
      case StackState::runqueue:
        return "runnable";
    }
    return "";
  }

  void skipped(size_t frames) {
    if (frames)
      row("", paint_(Ink::dim, "  ... " + std::to_string(frames) + (frames == 1 ? " frame" : " frames")));
  }

  void frame(const Frame& frame, bool is_culprit) {
    const size_t name_width = std::min<size_t>(40, room() / 2);
    const size_t place_width = room() - name_width - 3;
    const std::string text = (is_culprit ? "> " : "  ") +
                             pad(shorten_middle(printable(name(frame)), name_width), name_width) + " " +
                             shorten_middle(printable(place(frame)), place_width);
    const bool own = frame.origin == FrameOrigin::application && frame.kind != FrameKind::kernel;
    row("", paint_(is_culprit ? Ink::red : own ? Ink::bold : Ink::dim, text));
  }

  static std::string name(const Frame& frame) {
    if (frame.function.empty()) return "[unknown]";
    return frame.kind == FrameKind::kernel ? frame.function + " [kernel]" : frame.function;
  }

  static std::string place(const Frame& frame) {
    if (frame.file.empty()) return frame.module;
    return frame.line > 0 ? frame.file + ":" + std::to_string(frame.line) : frame.file;
  }

  size_t room() const { return terminal_.width - kLabel - 2; }

  void row(std::string_view label, std::string_view content) {
    text_ += "  " + paint_(Ink::dim, pad(label, kLabel));
    text_ += content;
    while (text_.ends_with(' ')) text_.pop_back();
    text_ += '\n';
  }

  const Stall& stall_;
  Terminal terminal_;
  Paint paint_;
  std::optional<CulpritPlace> culprit_;
  std::string text_;
};

}  // namespace

std::string render_stall(const Stall& stall, const Terminal& terminal) {
  return Block(stall, terminal).render();
}

Result<void> PrettySink::start(const StartRecord& record) {
  std::string targets;
  for (const std::string& target : record.targets) targets += (targets.empty() ? "" : " ") + target;
  if (targets.empty()) targets = "every loop on this host";
  const std::string text = "looptrace " + record.version + ": " + targets + ", stalls from " +
                           format_duration(record.threshold_ns) + " on";
  return writer_.write(Paint(options_.terminal.colours)(Ink::dim, printable(text)) + "\n\n");
}

Result<void> PrettySink::stall(const Stall& record) {
  if (record.state == StallState::open) {
    // Its block comes when it ends; if it never does, this line has named the place.
    const Paint paint(options_.terminal.colours);
    return writer_.write(short_time(record.time_ns) + "  " +
                         paint(Ink::yellow, printable(stall_message(record))) + "\n");
  }
  return writer_.write(render_stall(record, options_.terminal) + "\n");
}

Result<void> PrettySink::loop(const LoopRecord& record) {
  if (!options_.verbose) return {};
  std::string text = record.process.comm + '[' + std::to_string(record.thread_id) + "] " + record.loop.kind +
                     " busy " + percent(share_of(record.busy_ns, record.busy_ns + record.idle_ns));
  if (record.hooked_ns) text += ", " + std::to_string(record.iterations) + " iterations";
  if (record.hooked_ns && record.iteration) text += ", p99 " + format_duration(record.iteration->p99);
  text += ", " + std::to_string(record.stalls) + (record.stalls == 1 ? " stall" : " stalls");
  const Paint paint(options_.terminal.colours);
  return writer_.write(paint(Ink::dim, short_time(record.time_ns) + "  " + printable(text)) + "\n");
}

Result<void> PrettySink::window(const WindowRecord& record) {
  if (!options_.verbose) return {};
  std::string text = "window " + std::to_string(record.number);
  text += record.active ? ": " + std::to_string(record.stalls.seen) + " stalls, " +
                              std::to_string(record.stalls.kept) + " kept, budget " + record.budget.level
                        : ": not active";
  const Paint paint(options_.terminal.colours);
  return writer_.write(paint(Ink::dim, short_time(record.time_ns) + "  " + printable(text)) + "\n");
}

Result<void> PrettySink::warning(const WarningRecord& record) {
  const Paint paint(options_.terminal.colours);
  return writer_.write(paint(Ink::yellow, "warning: " + printable(record.message)) + " " +
                       paint(Ink::dim, '(' + printable(record.code) + ')') + "\n");
}

Result<void> PrettySink::summary(const SummaryRecord& record) {
  if (!record.final && !options_.verbose) return {};
  std::string text =
      summary_message(record) + "; looptrace used " + format_duration(record.own_cpu_ns) + " of CPU";
  if (record.bpf_run_ns) text += ", its BPF programs " + format_duration(*record.bpf_run_ns);
  return writer_.write(Paint(options_.terminal.colours)(Ink::bold, printable(text)) + "\n");
}

}  // namespace looptrace
