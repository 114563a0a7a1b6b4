// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/thread_states.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/files.h"
#include "stacks/proc_maps.h"

namespace looptrace::cpython {
namespace {

constexpr size_t kMaxInterpreters = 256;
constexpr size_t kMaxThreads = 16384;       // of one interpreter
constexpr size_t kMaxMarks = 2048;          // frames looked at for them
constexpr uint64_t kMaxState = 1024;        // bytes of a PyThreadState (3.10 to 3.12: 280 to 360)
constexpr uint8_t kOwnedByInterpreter = 3;  // 3.12+

// The thread's number in its innermost pid namespace: the last of "NSpid:".
std::optional<pid_t> innermost_tid(pid_t pid, pid_t tid) {
  const auto status = read_file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/status");
  if (!status) return std::nullopt;
  for (std::string_view line : split(*status, '\n')) {
    if (!line.starts_with("NSpid:")) continue;
    line = trim(line);
    const size_t last = line.find_last_of(" \t");
    pid_t inner = 0;
    if (last == std::string_view::npos) return std::nullopt;
    const std::string_view number = line.substr(last + 1);
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), inner);
    if (parsed.ec != std::errc{} || inner <= 0) return std::nullopt;
    return inner;
  }
  return std::nullopt;
}

// A descriptor begins with a pointer to itself in both libcs. struct pthread.tid: glibc 2.4 to 2.41 on
// x86-64; musl 1.1 and 1.2.
bool descriptor_has_tid(const RemoteMemory& memory, uint64_t descriptor, pid_t tid) {
  if (memory.pointer(descriptor) != descriptor) return false;
  for (const uint64_t offset : {0x2d0, 0x30, 0x38}) {
    if (memory.get<int32_t>(descriptor + offset) == tid) return true;
  }
  return false;
}

bool belongs(const RemoteMemory& memory, const Offsets& offsets, uint64_t thread_state, pid_t tid) {
  const auto& thread = offsets.thread;
  if (thread.native_thread_id >= 0) {
    return memory.pointer(thread_state + thread.native_thread_id) == static_cast<uint64_t>(tid);
  }
  return descriptor_has_tid(memory, memory.pointer(thread_state + thread.thread_id), tid);
}

// 3.15 has a frame of the interpreter's own below every stack: it alone is no frame.
bool runs_python(const RemoteMemory& memory, const Offsets& offsets, uint64_t state) {
  const uint64_t frame = current_frame(memory, offsets, state);
  if (!frame || offsets.minor < 15) return frame != 0;
  return memory.pointer(frame + offsets.frame.previous) != 0;
}

// Addresses on the native stack of what the state's eval loops keep there, the innermost's and the
// outermost's.
struct Extent {
  uint64_t inner, outer;
};

std::optional<Extent> extent_of(const RemoteMemory& memory, const Offsets& offsets, uint64_t state) {
  std::optional<Extent> found;
  const auto add = [&](uint64_t address) { found = Extent{found ? found->inner : address, address}; };
  if (offsets.thread.eval_mark >= 0) {
    // The last one lies in the state itself; 3.10 leaves what is behind it to chance.
    uint64_t at = memory.pointer(state + offsets.thread.eval_mark);
    for (size_t n = 0; at && at - state >= kMaxState && n < kMaxMarks; ++n) {
      add(at);
      at = memory.pointer(at + offsets.cframe_previous);
    }
    return found;
  }
  if (offsets.frame.owner < 0) return std::nullopt;
  uint64_t at = current_frame(memory, offsets, state);
  for (size_t n = 0; at && n < kMaxMarks; ++n) {
    const uint64_t previous = memory.pointer(at + offsets.frame.previous);
    const auto owner = memory.get<uint8_t>(at + offsets.frame.owner);
    const bool is_base = offsets.minor >= 15 && !previous;
    if (owner && *owner >= kOwnedByInterpreter && !is_base) add(at);
    at = previous;
  }
  return found;
}

// The end of the mapping that holds `sp`; 0 if there is none.
uint64_t stack_end(pid_t pid, uint64_t sp) {
  if (!sp) return 0;
  const auto maps = read_file("/proc/" + std::to_string(pid) + "/maps");
  if (!maps) return 0;
  for (const std::string_view line : split(*maps, '\n')) {
    const auto map = parse_maps_line(line);
    if (map && map->start <= sp && sp < map->end) return map->end;
  }
  return 0;
}

struct Candidate {
  uint64_t state;
  bool is_main;
  std::optional<Extent> extent;
};

size_t count_frames(const RemoteMemory& memory, const Offsets& offsets, uint64_t state) {
  size_t n = 0;
  for (uint64_t at = current_frame(memory, offsets, state); at && n < LT_MAX_PY; ++n)
    at = memory.pointer(at + offsets.frame.previous);
  return n;
}

// 3.8 and 3.9, where each frame has an eval loop of its own. `lent` are other threads' states, which this
// one may run.
std::vector<Candidate> without_marks(const RemoteMemory& memory, const Offsets& offsets,
                                     std::vector<Candidate> found, const std::vector<Candidate>& lent,
                                     const NativeStack& native) {
  const auto main = std::find_if(found.begin(), found.end(), [](const Candidate& c) { return c.is_main; });
  if (found.size() <= 2 && native.evals && main != found.end()) {
    const auto fits = [&](size_t frames) { return frames == *native.evals || frames + 1 == *native.evals; };
    // The other one may be run by another thread.
    const size_t frames = count_frames(memory, offsets, main->state);
    if (fits(frames)) return {*main};
    if (found.size() == 1) {
      std::vector<Candidate> both;
      std::copy_if(lent.begin(), lent.end(), std::back_inserter(both),
                   [&](const Candidate& c) { return fits(frames + count_frames(memory, offsets, c.state)); });
      both.push_back(*main);
      return both.size() == 2 ? both : found;
    }
  }
  if (found.size() > 2) return main == found.end() ? std::vector<Candidate>() : std::vector{*main};
  return found;
}

// Those that lie on the stack, in its order; none if they lie in each other.
std::vector<Candidate> in_order(std::vector<Candidate> found, const NativeStack& native, uint64_t end) {
  std::erase_if(found, [&](const Candidate& c) {
    return !c.extent || (native.sp && (c.extent->inner < native.sp || c.extent->outer >= end));
  });
  std::sort(found.begin(), found.end(),
            [](const Candidate& a, const Candidate& b) { return a.extent->inner < b.extent->inner; });
  for (size_t i = 0; i + 1 < found.size(); ++i) {
    if (found[i].extent->outer >= found[i + 1].extent->inner) return {};
  }
  return found;
}

}  // namespace

std::vector<uint64_t> interpreters(const RemoteMemory& memory, const Offsets& offsets, uint64_t runtime) {
  std::vector<uint64_t> found;
  uint64_t interpreter = memory.pointer(runtime + offsets.runtime.interpreters_head);
  while (interpreter && found.size() < kMaxInterpreters) {
    found.push_back(interpreter);
    interpreter = memory.pointer(interpreter + offsets.interpreter.next);
  }
  return found;
}

ThreadStates find_thread_states(const RemoteMemory& memory, const Offsets& offsets, uint64_t runtime,
                                pid_t tid, const NativeStack& native) {
  const auto inner = innermost_tid(memory.pid(), tid);
  if (!inner) return {};
  const auto all = interpreters(memory, offsets, runtime);
  const uint64_t end = all.size() > 1 ? stack_end(memory.pid(), native.sp) : 0;
  const bool lends = offsets.thread.eval_mark >= 0 && end;  // states of one thread to another
  const bool may_lend = offsets.minor <= 9 && native.evals && all.size() > 1;
  std::vector<Candidate> found, lent;
  uint64_t idle = 0;
  for (const uint64_t interpreter : all) {
    const bool is_main = interpreter == all.back();
    uint64_t state = memory.pointer(interpreter + offsets.interpreter.threads_head);
    for (size_t n = 0; state && n < kMaxThreads; ++n) {
      const bool own = belongs(memory, offsets, state, *inner);
      const bool runs = (own || (lends && !is_main)) && runs_python(memory, offsets, state);
      if (runs) {
        const Candidate candidate{state, is_main,
                                  all.size() > 1 ? extent_of(memory, offsets, state) : std::nullopt};
        const bool here =
            candidate.extent && candidate.extent->inner >= native.sp && candidate.extent->outer < end;
        if (own || here) found.push_back(candidate);
      }
      if (may_lend && !own && !is_main && runs_python(memory, offsets, state))
        lent.push_back({state, is_main, std::nullopt});
      if (own && !runs) idle = state;
      if (own) break;
      state = memory.pointer(state + offsets.thread.next);
    }
  }
  if (found.size() > 1 || lends || !lent.empty()) {
    found = offsets.minor <= 9 ? without_marks(memory, offsets, std::move(found), lent, native)
                               : in_order(std::move(found), native, end);
  }
  ThreadStates states{};
  for (size_t i = 0; i < std::min(found.size(), states.size()); ++i) states[i] = found[i].state;
  if (found.empty()) states[0] = idle;
  return states;
}

pid_t thread_of(const RemoteMemory& memory, const Offsets& offsets, uint64_t thread_state) {
  const std::string tasks = "/proc/" + std::to_string(memory.pid()) + "/task";
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(tasks.c_str()), closedir);
  if (!directory) return 0;
  // Without a pid namespace of its own the thread is called what it calls itself: no need to look for it.
  const bool own_names = innermost_tid(memory.pid(), memory.pid()) != memory.pid();
  const auto& thread = offsets.thread;
  if (!own_names && thread.native_thread_id >= 0) {
    const auto tid = memory.get<uint64_t>(thread_state + thread.native_thread_id).value_or(0);
    const bool lives =
        tid && tid <= INT32_MAX && access((tasks + "/" + std::to_string(tid)).c_str(), F_OK) == 0;
    return lives ? static_cast<pid_t>(tid) : 0;
  }
  size_t n = 0;
  while (const dirent* entry = readdir(directory.get())) {
    const pid_t tid = std::atoi(entry->d_name);
    if (tid <= 0 || ++n > kMaxThreads) continue;
    const std::optional<pid_t> inner = own_names ? innermost_tid(memory.pid(), tid) : tid;
    if (inner && belongs(memory, offsets, thread_state, *inner)) return tid;
  }
  return 0;
}

uint64_t current_frame(const RemoteMemory& memory, const Offsets& offsets, uint64_t thread_state,
                       uint64_t* cframe) {
  uint64_t holder = thread_state;
  if (offsets.thread.cframe >= 0) {
    holder = memory.pointer(thread_state + offsets.thread.cframe);
    if (cframe) *cframe = holder;
    if (!holder) return 0;
  }
  return memory.pointer(holder + offsets.thread.frame);
}

}  // namespace looptrace::cpython
