// SPDX-License-Identifier: Apache-2.0
#include "trace/assembler.h"

#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <tuple>

#include "arch.h"
#include "base/files.h"
#include "record/cause.h"
#include "record/culprit.h"
#include "record/fingerprint.h"
#include "record/syscalls.h"
#include "targets/fd_target.h"
#include "trace/clock.h"

namespace looptrace {

namespace {

// Distinct stacks kept per open iteration; a stall of minutes with thousands of waits stays bounded.
constexpr size_t kMaxPending = 128;
constexpr size_t kKeepRecent = 32;
constexpr size_t kMaxStacks = 8;  // of one record
constexpr size_t kMaxHolders = 16;
constexpr size_t kHolderFrames = 16;
// A shorter turn in the run queue names nobody: the kernel side does not keep who ran instead.
constexpr uint64_t kPreemptionWorthNaming = 1'000'000;

const char* ended_by_name(uint32_t ended_by) {
  switch (ended_by) {
    case LT_ENDED_EXIT:
      return "exit";
    case LT_ENDED_EXEC:
      return "exec";
    case LT_ENDED_KILL:
      return "kill";
  }
  return "";
}

std::string anon_kind(std::string_view name) {
  for (const auto& [in_kernel, kind] : {std::pair<std::string_view, const char*>{"[eventfd]", "eventfd"},
                                        {"[timerfd]", "timerfd"},
                                        {"[eventpoll]", "epoll"},
                                        {"[signalfd]", "signalfd"},
                                        {"inotify", "inotify"},
                                        {"[pidfd]", "pidfd"},
                                        {"[io_uring]", "io_uring"}}) {
    if (name == in_kernel) return kind;
  }
  return "anon";
}

// The waker of a wait on the network is on this host only if both ends are. Otherwise a packet came in while
// that process happened to run, and so it may have been where it is not known what was waited for.
bool both_ends_here(const WaitTarget& t) {
  if (t.kind == "unknown") return false;
  if (t.kind != "tcp" && t.kind != "udp") return true;
  const auto host = [](const std::string& endpoint) { return endpoint.substr(0, endpoint.rfind(':')); };
  return t.peer.starts_with("127.") || (!t.peer.empty() && host(t.peer) == host(t.local));
}

// Equal stacks may have run for different Tasks: then none is named.
void keep_common_task(RawCapture& kept, const RawCapture& other) {
  if (!kept.task) return;
  const lt_py_task other_task = other.task.value_or(lt_py_task{});
  lt_py_task& task = *kept.task;
  if (task.task != other_task.task || task.coro != other_task.coro || task.name != other_task.name) {
    task.task = 0;
    kept.task_created_at.reset();
  }
  if (task.handler_type != other_task.handler_type) task.handler_type = 0;
}

// Of all that had the lock: the thread that was seen most often, and where it was most often.
std::optional<Holder> holder_of(const LoopState& loop, TracedProcess& process) {
  const auto seen_of = [&](pid_t tid) {
    uint64_t times = 0;
    for (const SeenHolder& seen : loop.holders) times += seen.holder.tid == tid ? seen.times : 0;
    return times;
  };
  const SeenHolder* most = nullptr;
  for (const SeenHolder& seen : loop.holders) {
    const auto rank = [&](const SeenHolder& s) {
      return std::tuple(seen_of(s.holder.tid), !s.holder.frames.empty(), s.times);
    };
    if (!most || rank(seen) > rank(*most)) most = &seen;
  }
  if (!most || !process.runtime) return std::nullopt;
  Holder holder;
  const auto tid = static_cast<uint32_t>(most->holder.tid);
  holder.thread = {process.tgid, tid, most->comm};
  for (const lt_py_frame& frame : most->holder.frames) {
    if (holder.frames.size() == kHolderFrames) break;
    if (!process.runtime->is_shim(frame)) holder.frames.push_back(process.runtime->resolve(frame));
  }
  return holder;
}

}  // namespace

const char* poll_kind_name(uint32_t kind) {
  switch (kind) {
    case LT_POLL_EPOLL:
      return "epoll";
    case LT_POLL_POLL:
      return "poll";
    case LT_POLL_SELECT:
      return "select";
    case LT_POLL_IO_URING:
      return "io_uring";
  }
  return "unknown";
}

void Assembler::add_capture(LoopState& loop, RawCapture capture, const lt_slot& slot) {
  loop.turn_to(capture.head.seq);
  count_stack(loop, walk_status(capture.head));
  const bool sample = capture.head.reason == LT_CAPTURE_SAMPLE;
  const auto same = std::find_if(loop.pending.begin(), loop.pending.end(), [&](const PendingStack& p) {
    return p.capture.head.reason == capture.head.reason && p.capture.same_stack(capture);
  });
  const bool found = same != loop.pending.end();
  PendingStack& stack = found ? *same : loop.pending.emplace_back();
  if (sample) {
    stack.sampled_ns += capture.head.weight_ns;
    ++stack.samples;
  } else {
    stack.ids.push_back(capture.head.id);
    ++stack.samples;
  }
  if (found) {
    keep_common_task(stack.capture, capture);
  } else {
    stack.capture = std::move(capture);
    if (loop.pending.size() > kMaxPending) prune(loop, slot);
  }
}

void Assembler::count_stack(LoopState& loop, uint32_t status) {
  loop.stacks.add(status);
  stacks_tally_.add(status);
}

void Assembler::count_mended(LoopState& loop, uint32_t from, uint32_t to) {
  loop.stacks.change(from, to);
  stacks_tally_.change(from, to);
}

void Assembler::prune(LoopState& loop, const lt_slot& slot) {
  const auto wanted = [&](const PendingStack& p) {
    for (const uint64_t id : p.ids) {
      if (id == slot.off_capture) return true;
      for (const lt_segment& s : slot.it.top) {
        if (s.ns && s.capture == id) return true;
      }
      for (uint32_t i = 0; i < std::min<uint32_t>(slot.it.nwaits, LT_MAX_WAITS); ++i) {
        if (slot.it.waits[i].capture == id || slot.it.waits[i].other_capture == id) return true;
      }
    }
    return false;
  };
  // Samples go by weight, captures of switches by whether the kernel still counts them among the longest.
  std::vector<uint64_t> weights;
  for (const auto& p : loop.pending) {
    if (p.ids.empty()) weights.push_back(p.sampled_ns);
  }
  uint64_t least = 0;
  if (weights.size() > kMaxPending / 2) {
    std::nth_element(weights.begin(), weights.begin() + static_cast<ptrdiff_t>(weights.size() / 2),
                     weights.end());
    least = weights[weights.size() / 2];
  }
  const size_t recent_from = loop.pending.size() - kKeepRecent;
  size_t at = 0;
  const size_t before = loop.pending.size();
  std::erase_if(loop.pending, [&](const PendingStack& p) {
    if (at++ >= recent_from) return false;
    return p.ids.empty() ? p.sampled_ns < least : !wanted(p);
  });
  stacks_pruned_ += before - loop.pending.size();
  if (loop.pending.size() > kMaxPending) {  // all of equal weight
    stacks_pruned_ += kKeepRecent;
    loop.pending.erase(loop.pending.begin(), loop.pending.begin() + kKeepRecent);
  }
}

void Assembler::add_holder(LoopState& loop, uint64_t seq, LockHolder holder) {
  loop.turn_to(seq);
  const auto same = std::find_if(loop.holders.begin(), loop.holders.end(), [&](const SeenHolder& seen) {
    const auto& a = seen.holder.frames;
    const auto& b = holder.frames;
    return seen.holder.tid == holder.tid && std::equal(a.begin(), a.end(), b.begin(), b.end(), is_same_code);
  });
  if (same != loop.holders.end()) {
    ++same->times;
  } else if (loop.holders.size() < kMaxHolders) {
    const auto comm =
        procfs_.read(static_cast<pid_t>(loop.tgid), "task/" + std::to_string(holder.tid) + "/comm");
    loop.holders.push_back({std::move(holder), comm ? std::string(trim(*comm)) : "", 1});
  }
}

void Assembler::add_path(LoopState& loop, const lt_path& path) {
  // Leaf first, each part ended by a NUL.
  const std::string_view parts(path.path, std::min<size_t>(path.length, LT_PATH_LEN));
  std::string text;
  size_t from = 0;
  while (from < parts.size()) {
    size_t to = parts.find('\0', from);
    if (to == std::string_view::npos) to = parts.size();
    if (to > from) text.insert(0, "/" + std::string(parts.substr(from, to - from)));
    from = to + 1;
  }
  if (loop.paths.size() < LT_MAX_WAITS * 4) loop.paths[path.inode] = text;
}

WaitTarget Assembler::render_target(const LoopState& loop, const lt_iteration& it, const lt_wait& wait,
                                    const TracedProcess& process) const {
  const lt_target& t = wait.target;
  const pid_t pid = static_cast<pid_t>(process.tgid);
  WaitTarget out;
  if (wait.nr == LT_NR_futex) {
    out.kind = "futex";
    out.address = wait.arg0;
    return out;
  }
  if (wait.nr == LT_NR_wait4 || wait.nr == LT_NR_waitid) {
    const uint64_t child = wait.nr == LT_NR_wait4 ? wait.arg0 : wait.arg0 == 1 /* P_PID */ ? wait.arg1 : 0;
    if (const auto id = static_cast<int32_t>(child); id > 0) {
      out.kind = "process";
      out.pid = static_cast<uint32_t>(id);
    }
    return out;
  }
  if (t.fd < 0) return out;
  out.fd = t.fd;
  const WaitTarget* seen_live = nullptr;
  if (loop.seq == it.seq) {
    for (const LiveTarget& live : loop.live_targets) {
      if (live.nr == wait.nr && live.key == wait.key) seen_live = &live.target;
    }
  }
  if (t.kind == LT_TARGET_NONE) return seen_live ? *seen_live : out;
  const std::string fd_name = "fd/" + std::to_string(t.fd);
  const auto still_open = [&](std::string_view link) {
    return link == "socket:[" + std::to_string(t.inode) + "]" ||
           link == "pipe:[" + std::to_string(t.inode) + "]";
  };
  switch (t.kind) {
    case LT_TARGET_FILE:
    case LT_TARGET_DIRECTORY:
    case LT_TARGET_DEVICE: {
      out.kind = t.kind == LT_TARGET_DEVICE ? "device" : "file";
      struct stat st;
      const std::string path = procfs_.path(pid, fd_name);
      const auto link = procfs_.link(pid, fd_name);
      if (link && stat(path.c_str(), &st) == 0 && st.st_ino == t.inode) {
        out.path = *link;
      } else if (const auto it = loop.paths.find(t.inode); it != loop.paths.end()) {
        out.path = it->second;
      } else {
        out.path = std::string(t.name, strnlen(t.name, sizeof t.name));
      }
      break;
    }
    case LT_TARGET_PIPE:
      out.kind = "pipe";
      if (seen_live && seen_live->kind == "pipe") out.path = seen_live->path;
      if (const auto link = procfs_.link(pid, fd_name);
          link && !still_open(*link) && !link->empty() && (*link)[0] == '/') {
        struct stat st;
        if (stat(procfs_.path(pid, fd_name).c_str(), &st) == 0 && st.st_ino == t.inode) out.path = *link;
      }
      break;
    case LT_TARGET_UNIX:
      out.kind = "unix";
      if (seen_live && seen_live->kind == "unix") out.path = seen_live->path;
      if (const auto link = procfs_.link(pid, fd_name); link && still_open(*link)) {
        if (auto live = resolve_fd(procfs_, pid, t.fd)) out.path = live->path;
      }
      break;
    case LT_TARGET_TCP:
    case LT_TARGET_UDP:
      out.kind = t.kind == LT_TARGET_TCP ? "tcp" : "udp";
      out.local = render_endpoint(t.family, t.local, t.local_port);
      if (t.peer_port) out.peer = render_endpoint(t.family, t.peer, t.peer_port);
      break;
    case LT_TARGET_SOCKET:
      out.kind = t.family == AF_NETLINK ? "netlink" : "socket";
      break;
    default:
      out.kind = anon_kind(std::string_view(t.name, strnlen(t.name, sizeof t.name)));
  }
  return out;
}

Stall Assembler::build(LoopState& loop, TracedProcess& process, const IterationView& view,
                       std::string thread_name, std::string id, bool& modules_stale) {
  const lt_iteration& it = view.it;
  Stall stall;
  stall.id = std::move(id);
  stall.state = view.open ? StallState::open : StallState::closed;
  const bool was_open = loop.open_seq == it.seq && loop.open_time_ns;
  stall.time_ns = was_open ? loop.open_time_ns : to_realtime_ns(it.start_ns);
  if (view.open) loop.open_time_ns = stall.time_ns;
  stall.duration_ns = view.end_ns - it.start_ns;
  stall.threshold_ns = threshold_ns_;
  stall.on_cpu_ns = it.part_ns[LT_PART_ON_CPU];
  stall.runqueue_ns = it.part_ns[LT_PART_RUNQUEUE];
  stall.blocked_ns = it.part_ns[LT_PART_BLOCKED];
  stall.start_uncertain_ns = stall.duration_ns > it.certain_ns ? stall.duration_ns - it.certain_ns : 0;
  stall.ended_by = view.open ? "" : ended_by_name(view.ended_by);
  stall.process = process.info;
  stall.thread_id = loop.tid;
  stall.thread_name = std::move(thread_name);
  stall.container = process.container;
  stall.service = process.service;
  stall.loop.kind = poll_kind_name(view.poll_kind);
  if (view.poll_kind == LT_POLL_EPOLL || view.poll_kind == LT_POLL_IO_URING) stall.loop.fd = view.poll_fd;
  stall.segments = it.segments + 1;
  if (it.longest_runqueue_ns >= kPreemptionWorthNaming && it.preempted_by_pid) {
    stall.preempted_by = Peer{it.preempted_by_pid, it.preempted_by_tid, comm_text(it.preempted_by_comm)};
  }

  // Weights: what each captured stack stands for.
  const bool current = loop.seq == it.seq;
  struct Weight {
    uint64_t ns = 0, samples = 0;
  };
  std::vector<Weight> weights(current ? loop.pending.size() : 0);
  const auto pending_of = [&](uint64_t capture) -> std::optional<size_t> {
    if (!capture || !current) return std::nullopt;
    for (size_t i = 0; i < loop.pending.size(); ++i) {
      const auto& ids = loop.pending[i].ids;
      if (std::find(ids.begin(), ids.end(), capture) != ids.end()) return i;
    }
    return std::nullopt;
  };
  for (const lt_segment& s : it.top) {
    stall.longest_segment_ns = std::max<uint64_t>(stall.longest_segment_ns, s.ns);
    if (const auto at = s.ns ? pending_of(s.capture) : std::nullopt) {
      weights[*at].ns += s.ns;
      ++weights[*at].samples;
    }
  }
  stall.longest_segment_ns = std::max<uint64_t>(stall.longest_segment_ns, it.longest_runqueue_ns);
  std::vector<const lt_wait*> waits;
  for (uint32_t i = 0; i < std::min<uint32_t>(it.nwaits, LT_MAX_WAITS); ++i) waits.push_back(&it.waits[i]);
  if (it.more.count) waits.push_back(&it.more);
  struct Source {  // of a stack: one of the two, or neither
    std::optional<size_t> pending;
    std::optional<size_t> live;
    bool operator==(const Source&) const = default;
  };
  // Of hundreds of short waits the longest rarely has a stack: then that of another one.
  const auto source_of = [&](const lt_wait& w) -> Source {
    if (const auto longest = pending_of(w.capture)) return {longest, {}};
    for (size_t i = 0; current && i < loop.live.size(); ++i) {
      if (loop.live[i].nr == w.nr && loop.live[i].key == w.key) return {{}, i};
    }
    return {pending_of(w.other_capture), {}};
  };
  for (const lt_wait* w : waits) {
    if (const auto at = source_of(*w).pending; at && !weights[*at].ns) weights[*at] = {w->longest_ns, 1};
  }

  const auto capture_of = [&](const Source& s) -> const RawCapture& {
    return s.pending ? loop.pending[*s.pending].capture : loop.live[*s.live].capture;
  };

  struct Built {
    Stack stack;
    Source source;
  };
  std::vector<Built> built;
  for (size_t i = 0; i < weights.size(); ++i) {
    const PendingStack& p = loop.pending[i];
    const bool sample = p.ids.empty();
    const Weight w = sample ? Weight{p.sampled_ns, p.samples} : weights[i];
    if (!w.ns) continue;
    Built b;
    b.stack.state = sample ? StackState::on_cpu : StackState::blocked;
    b.stack.weight_ns = w.ns;
    b.stack.samples = w.samples;
    b.source.pending = i;
    built.push_back(std::move(b));
  }
  for (const lt_wait* w : waits) {
    const Source source = source_of(*w);
    if (!source.live) continue;
    Built b;
    b.stack.state = StackState::blocked;
    b.stack.weight_ns = w->longest_ns;
    b.stack.samples = 1;
    b.source = source;
    built.push_back(std::move(b));
  }
  std::stable_sort(built.begin(), built.end(),
                   [](const Built& a, const Built& b) { return a.stack.weight_ns > b.stack.weight_ns; });
  // A thousand short waits may be most of the stall, with a stack that stands for one of them: it is kept.
  const auto most = std::max_element(waits.begin(), waits.end(), [](const lt_wait* a, const lt_wait* b) {
    return a->total_ns < b->total_ns;
  });
  if (built.size() > kMaxStacks && most != waits.end()) {
    const auto its =
        std::find_if(built.begin() + kMaxStacks, built.end(),
                     [&, source = source_of(**most)](const Built& b) { return b.source == source; });
    if (its != built.end()) std::swap(built[kMaxStacks - 1], *its);
  }
  if (built.size() > kMaxStacks) built.resize(kMaxStacks);
  for (Built& b : built) {
    stacks_.build(capture_of(b.source), process, b.stack, modules_stale,
                  view.open ? Symbolizer::Detail::line_if_read : Symbolizer::Detail::line);
    stall.stacks.push_back(std::move(b.stack));
  }

  // What the runtime was at in each wait: told by its stack, also where the record has no room for that.
  struct Seen {
    bool stack = false, sleep = false, child_wait = false, collector = false;
  };
  const auto look_at = [&](const lt_wait& w) {
    const Source source = source_of(w);
    if (!process.runtime || (!source.pending && !source.live)) return Seen{};
    const auto listed =
        std::find_if(built.begin(), built.end(), [&](const Built& b) { return b.source == source; });
    Stack unlisted;
    if (listed == built.end())
      stacks_.build(capture_of(source), process, unlisted, modules_stale, Symbolizer::Detail::name);
    const auto& frames =
        listed == built.end() ? unlisted.frames : stall.stacks[size_t(listed - built.begin())].frames;
    const Runtime& runtime = *process.runtime;
    return Seen{.stack = true,
                .sleep = std::any_of(frames.begin(), frames.end(),
                                     [&](const Frame& f) { return runtime.is_sleep(f); }),
                .child_wait = std::any_of(frames.begin(), frames.end(),
                                          [&](const Frame& f) { return runtime.is_child_wait(f); }),
                .collector = collects(frames, [&](const Frame& f) { return runtime.is_gc(f); })};
  };
  std::vector<Seen> seen;
  bool collector = false, others = false;
  for (const lt_wait* w : waits) {
    const Seen& at = seen.emplace_back(look_at(*w));
    if (w->nr == LT_NR_futex && at.stack) (at.collector ? collector : others) = true;
  }
  // Its waits for its helpers are hundreds, each on a futex of its own: some stand for those without a stack.
  const bool only_collector = collector && !others;

  // Waits with their causes.
  struct Judged {
    Wait wait;
    Verdict verdict;
  };
  std::vector<Judged> judged;
  for (const lt_wait* w : waits) {
    Judged j;
    Wait& wait = j.wait;
    wait.syscall = w->nr >= 0 ? syscall_name(w->nr) : (w->flags & LT_WAIT_FAULT) ? "page fault" : "";
    wait.count = w->count;
    wait.duration_ns = w->total_ns;
    wait.longest_ns = w->longest_ns;
    if (WaitTarget target = render_target(loop, it, *w, process); !target.kind.empty() || target.fd) {
      if (target.kind.empty()) target.kind = "unknown";
      wait.target = std::move(target);
    }
    // A private futex is woken from within its process: another one was hit by the timer that ended the wait.
    const bool private_futex = w->nr == LT_NR_futex && (w->arg1 & FUTEX_PRIVATE_FLAG);
    const bool stranger = private_futex && w->waker_pid != loop.tgid;
    if (w->waker_pid && !stranger && (!wait.target || both_ends_here(*wait.target))) {
      wait.woken_by = Peer{w->waker_pid, w->waker_tid, comm_text(w->waker_comm)};
    }
    const Source source = source_of(*w);
    for (size_t i = 0; i < built.size(); ++i) {
      if (built[i].source == source) wait.stack = i;
    }
    WaitFacts facts;
    const std::string syscall = w->nr >= 0 ? wait.syscall : "";
    facts.syscall = syscall;
    facts.arg0 = w->arg0;
    facts.arg1 = w->arg1;
    facts.stopped = w->flags & LT_WAIT_STOPPED;
    facts.page_fault = w->flags & LT_WAIT_FAULT;
    facts.uninterruptible = w->flags & LT_WAIT_UNINTERRUPTIBLE;
    facts.global_lock = w->nr == LT_NR_futex && process.runtime && process.runtime->is_global_lock(w->arg0);
    const Seen& at = seen[judged.size()];
    facts.runtime_sleep = at.sleep;
    if (at.sleep) wait.target.reset();  // nobody's lock
    facts.child_wait = at.child_wait;
    facts.collector = at.stack ? at.collector : only_collector && !stranger;
    facts.target = wait.target;
    facts.woken_by = wait.woken_by;
    const std::vector<std::string> kernel =
        source.pending ? stacks_.kernel_functions(loop.pending[*source.pending].capture)
                       : std::vector<std::string>{};
    facts.kernel_functions.assign(kernel.begin(), kernel.end());
    j.verdict = judge_wait(facts);
    wait.cause = j.verdict.cause;
    judged.push_back(std::move(j));
  }
  const auto heavier = [](const Judged& a, const Judged& b) {
    return a.wait.duration_ns > b.wait.duration_ns;
  };
  std::stable_sort(judged.begin(), judged.end(), heavier);
  // CPython waits for the GIL on the words of one condition variable by turns: one wait, whoever ends it.
  const auto is_gil = [](const Judged& j) { return j.wait.cause == Cause::gil; };
  const auto gil = std::find_if(judged.begin(), judged.end(), is_gil);
  if (gil != judged.end()) {
    Wait& whole = gil->wait;
    for (auto j = gil + 1; j != judged.end(); ++j) {
      if (!is_gil(*j)) continue;
      whole.count += j->wait.count;
      whole.duration_ns += j->wait.duration_ns;
      whole.longest_ns = std::max(whole.longest_ns, j->wait.longest_ns);
      if (!whole.woken_by) whole.woken_by = j->wait.woken_by;
      if (!whole.stack) whole.stack = j->wait.stack;
    }
    judged.erase(std::remove_if(gil + 1, judged.end(), is_gil), judged.end());
    if (current) whole.held_by = holder_of(loop, process);
    gil->verdict.detail = describe_wait(whole);
    std::stable_sort(judged.begin(), judged.end(), heavier);
  }
  std::vector<Verdict> verdicts;
  for (Judged& j : judged) {
    stall.waits.push_back(std::move(j.wait));
    verdicts.push_back(std::move(j.verdict));
  }
  stall.waits_dropped = it.more.count;

  StallFacts facts;
  facts.throttled_ns = it.throttled_ns;
  facts.waits = verdicts;
  if (process.runtime) facts.is_gc = [&](const Frame& f) { return process.runtime->is_gc(f); };
  const Verdict verdict = judge_stall(stall, facts);
  stall.cause = verdict.cause;
  stall.confidence = verdict.confidence;
  stall.cause_detail = verdict.detail;
  const auto place = choose_culprit(stall);
  if (place) stall.culprit = stall.stacks[place->stack].frames[place->frame];
  stall.fingerprint = fingerprint(stall, place);
  if (process.runtime && !built.empty()) {
    const Built& of = built[place ? place->stack : 0];
    const RawCapture& capture = capture_of(of.source);
    stall.task = process.runtime->task(capture.python, capture.task ? &*capture.task : nullptr);
    if (stall.task && !stall.task->name.empty()) stall.task->created_at = capture.task_created_at;
  }
  return stall;
}

}  // namespace looptrace
