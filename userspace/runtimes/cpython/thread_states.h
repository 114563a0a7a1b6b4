// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "runtimes/cpython/offsets.h"
#include "runtimes/remote_memory.h"
#include "runtimes/runtime.h"

namespace looptrace::cpython {

/// The process's interpreters (PyInterpreterState*), newest first as the runtime lists them; 256 at most.
std::vector<uint64_t> interpreters(const RemoteMemory& memory, const Offsets& offsets, uint64_t runtime);

/// The thread's PyThreadStates, innermost first. `tid` is as we see it; the process knows the thread by its
/// number in its own pid namespace, which 3.11+ keeps (native_thread_id). Up to 3.10 there is only the
/// pthread_t, the address of libc's thread descriptor: the one whose own tid member is ours is taken.
///
/// A thread that calls into another interpreter (Interpreter.exec()) has a state there, too, which hangs by
/// itself. Which one is the inner is told by where their eval loops keep something on the thread's native
/// stack: a _PyCFrame (3.10 to 3.12) or the frame that marks an entry (3.12+). That also tells whether a
/// state is the thread's: up to 3.12 it is that of the thread which made the interpreter, whoever runs
/// it. 3.8 and 3.9 keep nothing there: of two states with frames the newer interpreter's is the inner, if the
/// native stack has eval frames for both; where there are more, only the main interpreter's is told. One that
/// another thread has made is this thread's if it alone has as many frames as the native stack has eval
/// frames besides the main interpreter's.
ThreadStates find_thread_states(const RemoteMemory& memory, const Offsets& offsets, uint64_t runtime,
                                pid_t tid, const NativeStack& native);

/// The state's innermost frame as the state tells it; 0 if it runs no Python. With 3.11 and 3.12 it lies
/// in a _PyCFrame, whose address is stored to `cframe`.
uint64_t current_frame(const RemoteMemory& memory, const Offsets& offsets, uint64_t thread_state,
                       uint64_t* cframe = nullptr);

/// The thread whose state this is, by the number that the kernel has for it here; 0 if there is none.
pid_t thread_of(const RemoteMemory& memory, const Offsets& offsets, uint64_t thread_state);

}  // namespace looptrace::cpython
