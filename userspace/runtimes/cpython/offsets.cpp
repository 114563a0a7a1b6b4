// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/offsets.h"

namespace looptrace::cpython {
namespace {

// Each number is offsetof() in that version's headers, printed by a program compiled against them, and
// each row has resolved real stacks. Members move between minor versions, never within one.

Offsets common() {
  Offsets o{};
  o.gil_size = 208;
  o.ob_type = 8;
  o.bytes = {.size = 16, .data = 32};
  return o;
}

// 3.8 to 3.10: frames are objects, one native eval frame each.
Offsets frame_objects(int minor) {
  Offsets o = common();
  o.minor = minor;
  o.runtime = {.interpreters_head = 32, .gil = minor == 8 ? 1152 : 352};
  o.interpreter = {.next = 0, .threads_head = 8, .gil = -1};
  o.thread = {.next = 8,
              .thread_id = 176,
              .native_thread_id = -1,
              .cframe = -1,
              .frame = 24,
              .eval_mark = minor == 10 ? 48 : -1};
  o.cframe_previous = minor == 10 ? 8 : -1;
  o.frame = {.code = 32,
             .previous = 24,
             .instr = minor == 10 ? 96 : 104,
             .owner = -1,
             .size = 112,
             .locals = minor == 10 ? 352 : 360};
  o.code = {.name = 112,
            .filename = 104,
            .firstlineno = 40,
            .flags = 36,
            .lines = 120,
            .bytecode = -1,
            .copies = -1,
            .size = 128};
  // Task: the numbers of 3.8, then what 3.9 and 3.10 put in front.
  const int more = minor == 8 ? 0 : minor == 9 ? 40 : 48;
  o.task = {.coro = 112 + more,
            .name = 120 + more,
            .source_traceback = minor == 10 ? 72 : 64,
            .coro_code = minor == 10 ? 24 : 32};
  o.unicode = {.length = 16, .state = 32, .kind_shift = 2, .ascii_data = 48, .compact_data = 72};
  return o;
}

Offsets python_3_11() {
  Offsets o = common();
  o.minor = 11;
  o.runtime = {.interpreters_head = 40, .gil = 360};
  o.interpreter = {.next = 0, .threads_head = 16, .gil = -1};
  o.thread = {
      .next = 8, .thread_id = 152, .native_thread_id = 160, .cframe = 56, .frame = 8, .eval_mark = 56};
  o.cframe_previous = 16;
  o.frame = {.code = 32, .previous = 48, .instr = 56, .owner = 68, .size = 72, .locals = 72};
  o.task = {.coro = 136, .name = 144, .source_traceback = 72, .coro_code = 112};
  o.code = {.name = 128,
            .filename = 112,
            .firstlineno = 72,
            .flags = 48,
            .lines = 136,
            .bytecode = 184,
            .copies = -1,
            .size = 144};
  o.unicode = {.length = 16, .state = 32, .kind_shift = 2, .ascii_data = 48, .compact_data = 72};
  return o;
}

Offsets python_3_12() {
  Offsets o = common();
  o.minor = 12;
  o.runtime = {.interpreters_head = 40, .gil = -1};
  o.interpreter = {.next = 0, .threads_head = 72, .gil = 384};
  o.thread = {
      .next = 8, .thread_id = 136, .native_thread_id = 144, .cframe = 56, .frame = 0, .eval_mark = 56};
  o.cframe_previous = 8;
  o.frame = {.code = 0, .previous = 8, .instr = 56, .owner = 70, .size = 72, .locals = 72};
  o.task = {.coro = 136, .name = 144, .source_traceback = 72, .coro_code = 72};
  o.code = {.name = 128,
            .filename = 112,
            .firstlineno = 68,
            .flags = 48,
            .lines = 136,
            .bytecode = 192,
            .copies = -1,
            .size = 144};
  o.unicode = {.length = 16, .state = 32, .kind_shift = 2, .ascii_data = 40, .compact_data = 56};
  return o;
}

}  // namespace

std::optional<Offsets> offsets_of(int minor) {
  switch (minor) {
    case 8:
    case 9:
    case 10:
      return frame_objects(minor);
    case 11:
      return python_3_11();
    case 12:
      return python_3_12();
    default:
      return std::nullopt;
  }
}

}  // namespace looptrace::cpython
