// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

namespace looptrace::cpython {

/// Where the members of one CPython build lie that we read. Bytes; -1 = the version has no such member.
/// Up to 3.12 from a table by minor version (x86-64 release builds); from 3.13 on the
/// interpreter describes itself (debug_offsets.h).
struct Offsets {
  int minor = 0;
  bool free_threaded = false;

  struct {
    int interpreters_head;
    int gil;  ///< the GIL itself (<= 3.11)
  } runtime;

  struct {
    int next;
    int threads_head;
    int gil;  ///< pointer to the interpreter's GIL (3.12+)
  } interpreter;
  int gil_size;

  struct {
    int next;
    int thread_id;         ///< pthread_t
    int native_thread_id;  ///< tid (3.11+)
    int cframe;            ///< _PyCFrame* (3.11, 3.12)
    int frame;             ///< current frame: in the _PyCFrame if there is one, else in the thread state
    int eval_mark;         ///< what each eval loop has on the C stack: a CFrame* (3.10), that _PyCFrame*
  } thread;
  int cframe_previous;  ///< also in a CFrame

  struct {
    int code, previous;
    int instr;   ///< f_lasti (<= 3.10), prev_instr (3.11, 3.12), instr_ptr (3.13+)
    int owner;   ///< is_entry (3.11), owner (3.12+)
    int size;    ///< of what has to be read to have them all
    int locals;  ///< the first local variable
  } frame;

  struct {
    int name;  ///< co_qualname (3.11+), co_name
    int filename, firstlineno;
    int flags;
    int lines;     ///< co_linetable (3.10+), co_lnotab
    int bytecode;  ///< co_code_adaptive: instruction addresses count from here (3.11+)
    int copies;    ///< co_tlbc: of the bytecode, for each thread but the first (3.14+ without a GIL)
    int size;      ///< of what has to be read to have them all
  } code;

  int ob_type;
  /// Where an object's own members begin; what follows has offsets of builds with a GIL, 16.
  int head() const { return ob_type + 8; }

  /// asyncio's own Task type, of C (TaskObj in _asynciomodule.c), and coroutines.
  struct {
    int coro, name;        ///< -1: not known in this version; 3.14+: asyncio_offsets.h
    int source_traceback;  ///< where it was created, in debug mode
    int coro_code;         ///< in a coroutine: cr_code, or the code of its embedded frame
  } task;

  struct {
    int length, state;
    int kind_shift;  ///< bit of `state` where `kind` begins; `compact` and `ascii` follow it
    int ascii_data, compact_data;
  } unicode;

  struct {
    int size, data;
  } bytes;

  /// And-mask for a frame's code pointer: 3.14 tags its references in the low two bits.
  uint64_t code_mask() const { return minor >= 14 ? ~uint64_t{3} : ~uint64_t{0}; }
};

constexpr int kOldestMinor = 8;
constexpr int kNewestMinor = 15;
constexpr int kFirstSelfDescribedMinor = 13;

/// The table's row for 3.`minor`; nothing for versions it does not hold (it ends at 3.12).
std::optional<Offsets> offsets_of(int minor);

}  // namespace looptrace::cpython
