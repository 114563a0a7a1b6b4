// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "looptrace.h"
#include "record/frame.h"
#include "record/task.h"
#include "stacks/module.h"
#include "stacks/user_unwinder.h"

namespace looptrace {

/// Whether two frames ran the same code object, not one at the address of another.
inline bool is_same_code(const lt_py_frame& a, const lt_py_frame& b) {
  return a.code == b.code && a.firstlineno == b.firstlineno && a.names == b.names;
}

/// A thread's interpreter states (PyThreadState*), innermost first; 0 = no more.
using ThreadStates = std::array<uint64_t, LT_MAX_PY_STATES>;

/// What is known of a thread's native stack.
struct NativeStack {
  uint64_t sp = 0;                ///< 0 = not known
  std::optional<size_t> evals{};  ///< frames that run the interpreter's eval loop
};

/// The thread that has a runtime's global lock.
struct LockHolder {
  pid_t tid = 0;
  std::vector<lt_py_frame> frames;  ///< where it was; empty if it would not hold still
};

/// Frames that hang from a thread's state, innermost first, and whether that is all of them.
struct InterpreterStack {
  std::vector<lt_py_frame> frames;
  lt_py_status status = LT_PY_END;
};

using SharedFrame = std::shared_ptr<const Frame>;

/// A frame that lies in the native stack's own. Several in one: the inner ones were inlined.
struct NamedFrame {
  uint32_t user;  ///< index of the native frame
  SharedFrame frame;
};

/// What a capture holds of frames that lie in the native stack's own.
struct StackSlots {
  std::span<const uint64_t> addresses;  ///< the native stack, leaf first
  std::span<const lt_v8_frame> frames;
  bool interrupted = false;  ///< the leaf's address is where it was interrupted, r9 and r15 are its own
  uint64_t r9 = 0, r15 = 0;
};

/// One language runtime inside one process: how BPF walks its frames, and what the frames are called.
/// Adding a runtime = one folder with an implementation, its walk in bpf/, a line in detect_runtime().
///
/// There are two kinds. Frames that hang from the thread's state (CPython) stand in the place of the native
/// frames of an eval loop. Frames that lie in the native stack's own (V8) each stand in the place of one.
/// What belongs to the other kind has a default that says "none".
class Runtime {
 public:
  virtual ~Runtime() = default;

  /// "cpython 3.11.2"
  virtual std::string name() const = 0;

  /// Fills the part of `process` that BPF needs for this runtime.
  virtual void configure(lt_process& process) const = 0;

  /// The process's files have changed: what was loaded since may have more to tell. configure() says what
  /// came of it.
  virtual void look_at(const ProcessModules&) {}

  /// The thread's states, as far as it runs something in their interpreters; that of its main one where it
  /// runs nothing; zeros if it has none (yet). They change when it enters another interpreter: to be asked
  /// for again where frames and native stack do not agree.
  virtual ThreadStates thread_states(pid_t, const NativeStack&) { return {}; }

  /// A native frame whose function is the interpreter's eval loop: interpreter frames stand in its place.
  /// For a return address pass address - 1, as for symbols.
  virtual bool is_eval(uint64_t) const { return false; }

  /// The runtime's global lock (GIL) holds this futex word.
  virtual bool is_global_lock(uint64_t) const { return false; }

  /// Who has the global lock that holds this futex word. Nothing if nobody has it, or hands changed
  /// meanwhile.
  virtual std::optional<LockHolder> global_lock_holder(uint64_t) { return std::nullopt; }

  /// Names one captured frame. Cached by its code object.
  virtual Frame resolve(const lt_py_frame&) { return {}; }

  /// This captured frame is the last (outermost) that belongs to the same native eval frame.
  virtual bool is_entry(const lt_py_frame&) const { return true; }

  /// This captured frame has no code of its own (3.12+ shims): dropped, but see is_entry.
  virtual bool is_shim(const lt_py_frame&) const { return true; }

  /// The native function is of the runtime's own program, whatever that is called: an application may be
  /// built into a copy of it.
  virtual bool is_runtime_code(const Frame&) const { return false; }

  /// The native function is the runtime's garbage collector. Needs module and offset too: stripped
  /// interpreters have no name for it.
  virtual bool is_gc(const Frame& native) const = 0;

  /// The native function is the runtime's sleep, be it that it waits on a futex.
  virtual bool is_sleep(const Frame&) const { return false; }

  /// The native function runs a child process to its end, in a loop of its own.
  virtual bool is_child_wait(const Frame&) const { return false; }

  /// The same walk as BPF's, from user space: for a blocked thread whose stack BPF did not take.
  virtual InterpreterStack walk(const ThreadStates&) { return {}; }

  /// Looks among captured frames for those by which BPF can tell what the loop's scheduler runs. True if
  /// configure() has more to tell now.
  virtual bool learn(std::span<const lt_py_frame>) { return false; }

  /// What BPF would send along with a capture, read from user space; with the caveats of walk().
  virtual std::optional<lt_py_task> see_task(const ThreadStates&) { return std::nullopt; }

  /// Where that Task was created, if the program kept it. To be asked soon: the Task may end.
  virtual std::optional<TaskInfo::Place> task_created_at(const lt_py_task&) { return std::nullopt; }

  /// What the loop's scheduler ran when these frames were captured; `seen` came with them, or is null.
  virtual std::optional<TaskInfo> task(std::span<const lt_py_frame>, const lt_py_task*) {
    return std::nullopt;
  }

  /// Names frames of the native stack, in their order, without those that turn out to be none of the
  /// runtime's or are no longer what they were. To be called when the capture arrives: objects move.
  virtual std::vector<NamedFrame> name_frames(const StackSlots&) { return {}; }

  /// Gives `modules` the unwind rows of code that the runtime made itself, as it is now. False if there are
  /// none.
  virtual bool cover(ProcessModules&) { return false; }

  /// There was more of it than cover() takes.
  virtual bool left_code_out() const { return false; }

  /// What lies at an address in that code, or calls what `returns` to it: what was inlined first, the
  /// function that has the code last. Nothing if it is not known.
  virtual std::vector<Frame> name_code(uint64_t, bool /*returns*/) { return {}; }

  /// The same reads as BPF's of one frame that no unwind table covers.
  virtual std::optional<lt_v8_frame> read_slots(const UnwoundStack::Pointers&) const { return std::nullopt; }
};

/// What a process runs, or null where no runtime is recognised. `warning` is set where a runtime was
/// recognised but its version is not known to us (its frames stay native).
std::unique_ptr<Runtime> detect_runtime(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning);

}  // namespace looptrace
