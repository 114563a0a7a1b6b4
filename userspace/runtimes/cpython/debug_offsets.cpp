// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/debug_offsets.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "runtimes/cpython/version.h"

namespace looptrace::cpython {
namespace {

// Index of each word that we use, counted from the start of _Py_DebugOffsets. Within a structure the
// members kept their order from 3.13 to 3.15; what was inserted between them moved the rest.
struct WordOrder {
  size_t runtime;      // size, finalizing, interpreters_head
  size_t interpreter;  // size, id, next, threads_head
  size_t gil;          // ceval_gil
  size_t thread;       // size, prev, next, interp, current_frame
  size_t thread_ids;   // thread_id, native_thread_id
  size_t frame;        // size, previous, executable, instr_ptr, localsplus, owner
  size_t code;         // size, filename, name, qualname, linetable, firstlineno, 3 more, co_code_adaptive,
                       // co_tlbc (3.14+)
  size_t object;       // size, ob_type
  size_t bytes;        // size, ob_size, ob_sval
  size_t unicode;      // size, state, length, asciiobject_size
  size_t generator;    // size, gi_name, gi_iframe, gi_frame_state (3.14+)
};

constexpr size_t kFirst = 3;  // after cookie, version, free_threaded

std::optional<WordOrder> word_order(int minor) {
  WordOrder o{.runtime = kFirst,
              .interpreter = kFirst + 3,
              .gil = kFirst + 11,
              .thread = 0,
              .thread_ids = 0,
              .frame = 0,
              .code = 0,
              .object = 0,
              .bytes = 0,
              .unicode = 0,
              .generator = 0};
  switch (minor) {
    case 13:
      o.thread = o.interpreter + 13;
      o.thread_ids = o.thread + 5;
      o.frame = o.thread + 9;
      o.code = o.frame + 6;
      o.object = o.code + 10;
      o.bytes = o.object + 2 + 4 + 3 + 3 + 3 + 2 + 3;  // type, tuple, list, dict, float, long
      break;
    case 14:  // + threads_main, two generations, stackpointer, tlbc_index, co_tlbc, set objects
      o.gil += 1;
      o.thread = o.interpreter + 16;
      o.thread_ids = o.thread + 5;
      o.frame = o.thread + 9;
      o.code = o.frame + 8;
      o.object = o.code + 11;
      o.bytes = o.object + 2 + 4 + 3 + 3 + 4 + 3 + 2 + 3;  // type, tuple, list, set, dict, float, long
      break;
    case 15:  // + base_frame, profiler and exception state, two of types, heap types
      o.gil += 1;
      o.thread = o.interpreter + 16;
      o.thread_ids = o.thread + 8;
      o.frame = o.thread + 16 + 1;
      o.code = o.frame + 8;
      o.object = o.code + 11;
      o.bytes = o.object + 2 + 6 + 2 + 3 + 3 + 4 + 3 + 2 + 3;
      break;
    default:
      return std::nullopt;
  }
  o.unicode = o.bytes + 3;
  if (minor >= 14) o.generator = o.unicode + (minor == 14 ? 6 : 10);  // gc
  return o;
}

class Words {
 public:
  explicit Words(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t at(size_t index) const {
    uint64_t word = 0;
    if (8 * index + 8 <= bytes_.size()) std::memcpy(&word, bytes_.data() + 8 * index, 8);
    return word;
  }

  // An offset within a structure whose size is word `size`. What lies outside makes the whole unsound.
  int member(size_t index, size_t size, uint64_t width = 8) {
    const uint64_t offset = at(index);
    if (offset > kLargest || offset + width > at(size)) sound_ = false;
    return static_cast<int>(std::min(offset, kLargest));
  }

  bool sound() const { return sound_; }

 private:
  static constexpr uint64_t kLargest = 16u << 20;

  std::span<const uint8_t> bytes_;
  bool sound_ = true;
};

int end_of(std::initializer_list<int> offsets) { return std::max(offsets) + 8; }

}  // namespace

Result<Offsets> decode_debug_offsets(std::span<const uint8_t> bytes) {
  Words words(bytes);
  if (bytes.size() < 24 || std::memcmp(bytes.data(), "xdebugpy", 8) != 0) {
    return Error{"its _PyRuntime does not begin with debug offsets", 0, Fault::unsupported};
  }
  const Version version = Version::from_hex(words.at(1));
  const auto order = version.major == 3 ? word_order(version.minor) : std::nullopt;
  if (!order) return Error{"debug offsets of " + version.text() + " are not known", 0, Fault::unsupported};
  if (version.is_prerelease()) {
    return Error{version.text() + " is a pre-release, whose layout may differ", 0, Fault::unsupported};
  }

  Offsets o{};
  o.minor = version.minor;
  o.free_threaded = words.at(2) != 0;
  o.runtime = {.interpreters_head = words.member(order->runtime + 2, order->runtime), .gil = -1};
  o.interpreter.next = words.member(order->interpreter + 2, order->interpreter);
  o.interpreter.threads_head = words.member(order->interpreter + 3, order->interpreter);
  o.interpreter.gil = words.member(order->gil, order->interpreter);
  o.gil_size = o.free_threaded ? 216 : 208;

  o.thread.next = words.member(order->thread + 2, order->thread);
  o.thread.frame = words.member(order->thread + 4, order->thread);
  o.thread.thread_id = words.member(order->thread_ids, order->thread);
  o.thread.native_thread_id = words.member(order->thread_ids + 1, order->thread);
  o.thread.cframe = o.thread.eval_mark = -1;
  o.cframe_previous = -1;

  o.frame.previous = words.member(order->frame + 1, order->frame);
  o.frame.code = words.member(order->frame + 2, order->frame);
  o.frame.instr = words.member(order->frame + 3, order->frame);
  o.frame.locals = words.member(order->frame + 4, order->frame, 0);
  o.frame.owner = words.member(order->frame + 5, order->frame, 1);
  o.frame.size = end_of({o.frame.previous, o.frame.code, o.frame.instr, o.frame.owner - 7});

  o.code.filename = words.member(order->code + 1, order->code);
  o.code.name = words.member(order->code + 3, order->code);
  o.code.lines = words.member(order->code + 4, order->code);
  o.code.firstlineno = words.member(order->code + 5, order->code, 4);
  o.code.bytecode = words.member(order->code + 9, order->code, 1);
  o.code.copies = o.free_threaded && o.minor >= 14 ? words.member(order->code + 10, order->code) : -1;
  o.code.size = end_of({o.code.filename + 16, o.code.name, o.code.lines, o.code.firstlineno});

  o.ob_type = words.member(order->object + 1, order->object);
  o.bytes.size = words.member(order->bytes + 1, order->bytes);
  o.bytes.data = words.member(order->bytes + 2, order->bytes, 1);

  // Not told: the third member behind the head of an object with a size.
  o.code.flags = o.bytes.size + 8 + 3 * 8;
  // Nor are asyncio's. Later versions tell them elsewhere.
  const bool tasks_known = o.minor == 13;
  o.task = {.coro = tasks_known ? o.head() + 104 : -1,
            .name = tasks_known ? o.head() + 112 : -1,
            .source_traceback = o.head() + 56,
            .coro_code = o.head() + 56};
  if (order->generator) {
    o.task.coro_code = words.member(order->generator + 2, order->generator) + o.frame.code;
  }

  o.unicode.state = words.member(order->unicode + 1, order->unicode, 4);
  o.unicode.length = words.member(order->unicode + 2, order->unicode);
  // Free-threaded builds keep `interned` in a byte of its own since 3.14.
  o.unicode.kind_shift = o.free_threaded && o.minor >= 14 ? 8 : 2;
  o.unicode.ascii_data = static_cast<int>(std::min<uint64_t>(words.at(order->unicode + 3), 256));
  o.unicode.compact_data = o.unicode.ascii_data + 16;  // + utf8_length, utf8

  const bool small = o.frame.size <= 256 && o.code.size <= 512 && o.code.flags + 4 <= o.code.size &&
                     o.ob_type <= 64 && o.bytes.size <= 64 && o.bytes.data <= 64 &&
                     o.unicode.ascii_data >= 40 && o.unicode.ascii_data <= 64;
  if (!words.sound() || !small) {
    return Error{"its debug offsets contradict each other", 0, Fault::unsupported};
  }
  return o;
}

}  // namespace looptrace::cpython
