// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/thread_states.h"

#include <dirent.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "base/files.h"

namespace looptrace::cpython {
namespace {

constexpr size_t kMaxInterpreters = 256;
constexpr size_t kMaxThreads = 16384;  // of one interpreter

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

uint64_t state_in(const RemoteMemory& memory, const Offsets& offsets, uint64_t interpreter, pid_t tid) {
  uint64_t state = memory.pointer(interpreter + offsets.interpreter.threads_head);
  for (size_t n = 0; state && n < kMaxThreads; ++n) {
    if (belongs(memory, offsets, state, tid)) return state;
    state = memory.pointer(state + offsets.thread.next);
  }
  return 0;
}

// 3.15 has a frame of the interpreter's own below every stack: it alone is no frame.
bool runs_python(const RemoteMemory& memory, const Offsets& offsets, uint64_t state) {
  const uint64_t frame = current_frame(memory, offsets, state);
  if (!frame || offsets.minor < 15) return frame != 0;
  return memory.pointer(frame + offsets.frame.previous) != 0;
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

uint64_t find_thread_state(const RemoteMemory& memory, const Offsets& offsets, uint64_t runtime, pid_t tid) {
  const auto inner = innermost_tid(memory.pid(), tid);
  if (!inner) return 0;
  uint64_t oldest = 0;
  for (const uint64_t interpreter : interpreters(memory, offsets, runtime)) {
    const uint64_t state = state_in(memory, offsets, interpreter, *inner);
    if (!state) continue;
    if (runs_python(memory, offsets, state)) return state;
    oldest = state;
  }
  return oldest;
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
