// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "runtimes/cpython/offsets.h"
#include "runtimes/remote_memory.h"

namespace looptrace::cpython {

/// The process's interpreters (PyInterpreterState*), newest first as the runtime lists them; 256 at most.
std::vector<uint64_t> interpreters(const RemoteMemory& memory, const Offsets& offsets, uint64_t runtime);

/// The thread's PyThreadState, 0 if it has none. `tid` is as we see it; the process knows the thread by its
/// number in its own pid namespace, which 3.11+ keeps (native_thread_id). Up to 3.10 there is only the
/// pthread_t, the address of libc's thread descriptor: the one whose own tid member is ours is taken.
///
/// A thread can have a state in several interpreters (it entered a sub-interpreter): the newest that has
/// frames is taken, and so another one later. Ask again now and then.
uint64_t find_thread_state(const RemoteMemory& memory, const Offsets& offsets, uint64_t runtime, pid_t tid);

/// The state's innermost frame as the state tells it; 0 if it runs no Python. With 3.11 and 3.12 it lies
/// in a _PyCFrame, whose address is stored to `cframe`.
uint64_t current_frame(const RemoteMemory& memory, const Offsets& offsets, uint64_t thread_state,
                       uint64_t* cframe = nullptr);

/// The thread whose state this is, by the number that the kernel has for it here; 0 if there is none.
pid_t thread_of(const RemoteMemory& memory, const Offsets& offsets, uint64_t thread_state);

}  // namespace looptrace::cpython
