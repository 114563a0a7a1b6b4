// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>

#include "looptrace.h"
#include "record/task.h"
#include "runtimes/cpython/asyncio_offsets.h"
#include "runtimes/cpython/code_cache.h"
#include "runtimes/cpython/installation.h"
#include "runtimes/remote_memory.h"

namespace looptrace::cpython {

/// Which asyncio Task a stack ran for.
///
/// The coroutine is the stack's own word: it is the frame that asyncio's Handle._run called, if that is a
/// coroutine's. (uvloop has no such frame: the outermost coroutine on the stack.) The Task's name is in no
/// frame. From 3.14 on the thread's state names the running Task. Before, Handle._run's first local is the
/// handle, whose callback steps the Task: BPF is told where to look as soon as a capture has met the
/// function, for an idle loop does not show it. All this holds at the moment of the capture only, so BPF
/// follows the pointers then, and copies the name. What it found is believed if the types are those of a Task
/// and its coroutine runs the code of the frame.
///
/// Limits: no names for Tasks of Python code (asyncio.tasks._PyTask) and of coroutines that Cython compiled;
/// up to 3.13 none for those of uvloop and of an eager task factory.
class Tasks {
 public:
  Tasks(const RemoteMemory& memory, const Installation& python, CodeCache& codes)
      : memory_(memory), python_(python), codes_(codes) {}

  /// Tells where Tasks keep what (3.14+).
  void set_asyncio(const AsyncioOffsets& offsets) { asyncio_ = offsets; }
  bool has_asyncio() const { return asyncio_.has_value(); }

  /// Looks for the functions among the frames. True if one was found that was not known.
  bool learn(std::span<const lt_py_frame> frames);

  /// For BPF: what has been learned.
  lt_py_task_config config() const;

  /// Frames of the functions that were learned, 0 = none.
  struct Watched {
    uint64_t handle = 0, handler = 0;
    uint64_t ran = 0;  ///< what the outermost Runner.run() called
  };

  /// The same as BPF's, from user space.
  lt_py_task read(uint64_t thread_state, const Watched& frames) const;

  /// Position of the coroutine that the running Task runs. `frames` without shims, innermost first.
  std::optional<size_t> coroutine(std::span<const lt_py_frame> frames) const;

  /// The class and method that Tornado called to answer a request; empty if it did not, or that is not known.
  std::string handler(std::span<const lt_py_frame> frames, const lt_py_task* seen) const;

  /// The name, if what was seen is the Task that runs `coroutine`. Empty otherwise.
  std::string name(const lt_py_task& seen, const lt_py_frame& coroutine) const;

  /// Where it was created; only if it is still there and asyncio's debug mode has kept it.
  std::optional<TaskInfo::Place> created_at(const lt_py_task& seen) const;

 private:
  const Code* code_of(const lt_py_frame& frame) const;
  bool is_coroutine(const lt_py_frame& frame) const;
  bool is_task_type(uint64_t type) const;
  bool is_handler_type(uint64_t type) const;
  std::string type_name(uint64_t type) const;
  int self_offset(uint64_t code) const;
  uint64_t self_of(const lt_py_watch& watch, uint64_t frame) const;
  uint64_t type_of(uint64_t object) const;
  uint64_t running_task(uint64_t thread_state, uint64_t handle) const;
  std::optional<TaskInfo::Place> summary(uint64_t object) const;
  std::string name_text(std::span<const uint8_t> object) const;
  std::optional<int64_t> small_int(std::span<const uint8_t> object) const;

  const RemoteMemory& memory_;
  const Installation& python_;
  CodeCache& codes_;
  std::optional<AsyncioOffsets> asyncio_;
  lt_py_watch handle_{}, handler_{}, runner_{};
  std::unordered_set<uint64_t> met_;  // frames' code objects that were looked at
};

}  // namespace looptrace::cpython
