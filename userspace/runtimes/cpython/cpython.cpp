// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/cpython.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <string_view>
#include <utility>

#include "runtimes/cpython/code_cache.h"
#include "runtimes/cpython/installation.h"
#include "runtimes/cpython/line_table.h"
#include "runtimes/cpython/tasks.h"
#include "runtimes/cpython/thread_states.h"
#include "runtimes/remote_memory.h"

namespace looptrace {
namespace cpython {
namespace {

constexpr size_t kMaxCopies = 1023;          // of a code object: 8 KiB
constexpr uint32_t kOwnedByInterpreter = 3;  // 3.12+: a shim; what is above it owns no code either

// Names of the collector's functions from 3.8 to 3.15, without the compiler's suffixes.
constexpr std::array<std::string_view, 20> kCollectorFunctions = {"PyGC_Collect",
                                                                  "_PyGC_Collect",
                                                                  "_PyGC_CollectNoFail",
                                                                  "_Py_RunGC",
                                                                  "gc_collect_main",
                                                                  "gc_collect_full",
                                                                  "gc_collect_young",
                                                                  "gc_collect_increment",
                                                                  "gc_collect_region",
                                                                  "gc_collect_internal",
                                                                  "gc_collect_impl",
                                                                  "gc_collect_generations",
                                                                  "gc_collect",
                                                                  "gc_collect_with_callback",
                                                                  "collect",
                                                                  "collect_generations",
                                                                  "collect_with_callback",
                                                                  "deduce_unreachable",
                                                                  "subtract_refs",
                                                                  "move_unreachable"};

class CPython final : public Runtime {
 public:
  CPython(pid_t pid, Installation installation)
      : memory_(pid),
        python_(std::move(installation)),
        codes_(memory_, python_.offsets, python_.code_type),
        tasks_(memory_, python_, codes_) {}

  std::string name() const override {
    return "cpython " + python_.version.text() + (python_.offsets.free_threaded ? "t" : "");
  }

  void configure(lt_process& process) const override;
  void look_at(const ProcessModules& modules) override;
  ThreadStates thread_states(pid_t tid, const NativeStack& native) override;
  bool is_eval(uint64_t address) const override;
  bool is_global_lock(uint64_t futex_address) const override;
  std::optional<LockHolder> global_lock_holder(uint64_t futex_address) override;
  Frame resolve(const lt_py_frame& frame) override;
  bool is_entry(const lt_py_frame& frame) const override;
  bool is_shim(const lt_py_frame& frame) const override;
  bool is_gc(const Frame& native) const override;
  InterpreterStack walk(const ThreadStates& states) override;
  bool learn(std::span<const lt_py_frame> frames) override;
  std::optional<lt_py_task> see_task(const ThreadStates& states) override;
  std::optional<TaskInfo::Place> task_created_at(const lt_py_task& seen) override {
    return tasks_.created_at(seen);
  }
  std::optional<TaskInfo> task(std::span<const lt_py_frame> frames, const lt_py_task* seen) override;

 private:
  // What one frame holds, as BPF reads it, and the next.
  struct Link {
    lt_py_frame frame;
    uint64_t previous;
  };
  uint64_t lock_at(uint64_t futex_address) const;
  std::optional<Link> read_frame(uint64_t address) const;
  InterpreterStack walk(uint64_t thread_state, std::vector<uint64_t>* addresses);
  std::optional<lt_py_task> see_task(uint64_t thread_state);
  std::vector<lt_py_frame> without_shims(std::span<const lt_py_frame> frames) const;
  bool read_code(lt_py_frame& frame) const;
  int line_of(const Code& code, const lt_py_frame& frame) const;
  std::optional<int64_t> place_in_code(const Code& code, const lt_py_frame& frame) const;

  const RemoteMemory memory_;
  const Installation python_;
  mutable CodeCache codes_;  // is_shim() looks at code objects too
  Tasks tasks_;
};

void CPython::configure(lt_process& process) const {
  const Offsets& o = python_.offsets;
  process.py = {.minor = o.minor,
                .cframe = o.thread.cframe,
                .frame = o.thread.frame,
                .f_code = o.frame.code,
                .f_previous = o.frame.previous,
                .f_instr = o.frame.instr,
                .f_owner = o.frame.owner,
                .co_firstlineno = o.code.firstlineno,
                .co_filename = o.code.filename,
                .pad = 0,
                .code_type = python_.code_type,
                .code_mask = o.code_mask(),
                .task = tasks_.config()};
}

void CPython::look_at(const ProcessModules& modules) {
  if (python_.offsets.minor < 14 || tasks_.has_asyncio()) return;
  if (const auto asyncio = find_asyncio(modules)) tasks_.set_asyncio(*asyncio);
}

ThreadStates CPython::thread_states(pid_t tid, const NativeStack& native) {
  return find_thread_states(memory_, python_.offsets, python_.runtime, tid, native);
}

bool CPython::is_eval(uint64_t address) const {
  return std::any_of(python_.eval.begin(), python_.eval.end(),
                     [&](const AddressRange& range) { return range.holds(address); });
}

uint64_t CPython::lock_at(uint64_t futex_address) const {
  const Offsets& o = python_.offsets;
  const auto in_gil = [&](uint64_t gil) {
    return gil && futex_address >= gil && futex_address < gil + static_cast<uint64_t>(o.gil_size);
  };
  if (o.runtime.gil >= 0) {
    const uint64_t gil = python_.runtime + static_cast<uint64_t>(o.runtime.gil);
    return in_gil(gil) ? gil : 0;
  }
  for (const uint64_t interpreter : interpreters(memory_, o, python_.runtime)) {
    const uint64_t gil = memory_.pointer(interpreter + static_cast<uint64_t>(o.interpreter.gil));
    if (in_gil(gil)) return gil;
  }
  return 0;
}

bool CPython::is_global_lock(uint64_t futex_address) const { return lock_at(futex_address) != 0; }

std::optional<LockHolder> CPython::global_lock_holder(uint64_t futex_address) {
  struct Gil {
    uint64_t holder;         // PyThreadState*
    uint64_t locked;         // an int
    uint64_t switch_number;  // of times that it went to another thread
    bool operator==(const Gil&) const = default;
  };
  const uint64_t gil = lock_at(futex_address);
  if (!gil) return std::nullopt;
  const auto look = [&]() -> std::optional<Gil> {
    // Behind `interval`; a build that can do without has `enabled` before it.
    auto state = memory_.get<Gil>(gil + (python_.offsets.free_threaded ? 16 : 8));
    if (!state || !(state->locked &= 0xffffffff) || state->locked != 1 || !state->holder) return std::nullopt;
    return state;
  };
  const auto same_codes = [](const std::vector<lt_py_frame>& a, const std::vector<lt_py_frame>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), is_same_code);
  };
  const auto before = look();
  if (!before) return std::nullopt;
  LockHolder found;
  found.tid = thread_of(memory_, python_.offsets, before->holder);
  // It runs while it is looked at: what two walks agree on was so.
  std::vector<lt_py_frame> last = walk(before->holder, nullptr).frames;
  for (int tries = 0; tries < 3 && found.frames.empty(); ++tries) {
    auto next = walk(before->holder, nullptr).frames;
    if (same_codes(next, last)) found.frames = std::move(next);
    last = std::move(next);
  }
  if (!found.tid || look() != before) return std::nullopt;
  return found;
}

// The frame's instruction counted from the first. Without a GIL 3.14+ copies the code for each thread but the
// first: an array of their addresses behind its length, by the thread's index, 0 for those that never ran it.
std::optional<int64_t> CPython::place_in_code(const Code& code, const lt_py_frame& frame) const {
  const Offsets& o = python_.offsets;
  const uint64_t address = frame.code & o.code_mask();
  const auto from = [&](uint64_t bytecode) { return static_cast<int64_t>(frame.instr - bytecode); };
  const int64_t own = from(address + static_cast<uint64_t>(o.code.bytecode));
  if (o.code.copies < 0) return own;
  const auto lies_in = [&](int64_t place) {
    return place >= 0 && static_cast<uint64_t>(place) < code.bytecode;
  };
  if (lies_in(own)) return own;
  std::array<uint64_t, 1 + kMaxCopies> words{};
  const uint64_t array = memory_.pointer(address + static_cast<uint64_t>(o.code.copies));
  const size_t read = array % 8 == 0 && array ? memory_.read_some(array, words.data(), sizeof words) / 8 : 0;
  for (size_t i = 1; i < read && i <= words[0]; ++i) {
    if (words[i] && lies_in(from(words[i]))) return from(words[i]);
  }
  return std::nullopt;
}

int CPython::line_of(const Code& code, const lt_py_frame& frame) const {
  const Offsets& o = python_.offsets;
  const std::vector<uint8_t>& lines = *code.lines;
  std::optional<int> line;
  if (o.minor >= 11) {
    if (const auto place = place_in_code(code, frame))
      line = line_by_locations(lines, code.first_line, *place);
  } else {
    const auto last = static_cast<int32_t>(frame.instr);  // an int: BPF read what follows it too
    line = o.minor == 10 ? line_by_ranges(lines, code.first_line, int64_t{2} * last)
                         : line_by_lnotab(lines, code.first_line, last);
  }
  return std::max(line.value_or(0), 0);
}

Frame CPython::resolve(const lt_py_frame& frame) {
  Frame out;
  out.kind = FrameKind::python;
  const Code* code = codes_.find(frame);
  if (!code) {
    out.function = "?";
    return out;
  }
  out.function = code->function;
  out.file = code->source->file;
  out.module = code->source->module;
  out.origin = code->source->origin;
  out.at_definition = !code->lines && code->first_line > 0;
  out.line = code->lines ? line_of(*code, frame) : std::max(code->first_line, 0);
  return out;
}

bool CPython::is_entry(const lt_py_frame& frame) const {
  if (python_.offsets.minor <= 10) return true;
  if (python_.offsets.minor == 11) return frame.owner != 0;
  return frame.owner == kOwnedByInterpreter;
}

bool CPython::is_shim(const lt_py_frame& frame) const {
  if (python_.offsets.minor < 12) return false;
  if (frame.owner >= kOwnedByInterpreter) return true;
  // 3.13+ runs a few instructions of its own around an inlined __init__, in a frame like any other.
  if (python_.offsets.minor < 13 || frame.firstlineno != 0) return false;
  const uint64_t address = frame.code & python_.offsets.code_mask();
  if (python_.init_cleanup) return address == python_.init_cleanup;
  const Code* code = codes_.find(frame);
  return code && code->function == "__init__" && code->source->file == "__init__";
}

bool CPython::is_gc(const Frame& native) const {
  if (native.module != python_.module) return false;
  if (std::any_of(python_.collector.begin(), python_.collector.end(),
                  [&](const AddressRange& range) { return range.holds(native.offset); })) {
    return true;
  }
  const std::string_view function = std::string_view(native.function).substr(0, native.function.find('.'));
  return std::find(kCollectorFunctions.begin(), kCollectorFunctions.end(), function) !=
         kCollectorFunctions.end();
}

// What tells the frame's code object from another at its address. False if there is none.
bool CPython::read_code(lt_py_frame& frame) const {
  const Offsets& o = python_.offsets;
  std::array<uint8_t, 256> head;  // from the object's start to its names
  const auto size = static_cast<size_t>(o.code.filename) + 24;
  if (size > head.size() || !memory_.read(frame.code, head.data(), size)) return false;
  uint64_t type = 0;
  std::array<uint64_t, 3> names;
  std::memcpy(&type, head.data() + o.ob_type, sizeof type);
  std::memcpy(&frame.firstlineno, head.data() + o.code.firstlineno, sizeof frame.firstlineno);
  std::memcpy(names.data(), head.data() + o.code.filename, sizeof names);
  frame.names = lt_py_names(names[0], names[1], names[2]);
  return !python_.code_type || type == python_.code_type;
}

std::optional<CPython::Link> CPython::read_frame(uint64_t address) const {
  const Offsets& o = python_.offsets;
  std::array<uint8_t, 256> bytes;
  const auto size = static_cast<size_t>(o.frame.size);
  if (address % 8 != 0 || size > bytes.size() || !memory_.read(address, bytes.data(), size)) {
    return std::nullopt;
  }
  Link link{};
  std::memcpy(&link.frame.code, bytes.data() + o.frame.code, 8);
  std::memcpy(&link.frame.instr, bytes.data() + o.frame.instr, 8);
  std::memcpy(&link.previous, bytes.data() + o.frame.previous, 8);
  link.frame.code &= o.code_mask();
  if (o.frame.owner >= 0) link.frame.owner = bytes[static_cast<size_t>(o.frame.owner)];
  if (o.minor >= 12 && link.frame.owner >= kOwnedByInterpreter) return link;
  if (!read_code(link.frame)) return std::nullopt;
  return link;
}

InterpreterStack CPython::walk(uint64_t thread_state, std::vector<uint64_t>* addresses) {
  const Offsets& o = python_.offsets;
  InterpreterStack stack;
  auto& frames = stack.frames;
  uint64_t cframe = 0;
  uint64_t address = thread_state ? current_frame(memory_, o, thread_state, &cframe) : 0;
  auto link = address ? read_frame(address) : std::nullopt;
  if (!link && cframe) {
    // 3.11 and 3.12 link a new _PyCFrame before they fill it: then the one below is the innermost.
    cframe = memory_.pointer(cframe + static_cast<uint64_t>(o.cframe_previous));
    address = cframe ? memory_.pointer(cframe + static_cast<uint64_t>(o.thread.frame)) : 0;
    link = address ? read_frame(address) : std::nullopt;
  }
  while (link && frames.size() < LT_MAX_PY) {
    // 3.15 keeps one more shim below the outermost eval frame's: it stands for no native frame.
    const bool is_base = o.minor >= 15 && link->previous == 0 && link->frame.owner >= kOwnedByInterpreter;
    if (!is_base) frames.push_back(link->frame);
    if (!is_base && addresses) addresses->push_back(address);
    address = link->previous;
    link = address ? read_frame(address) : std::nullopt;
  }
  if (address) stack.status = link ? LT_PY_FULL : LT_PY_FAULT;
  return stack;
}

InterpreterStack CPython::walk(const ThreadStates& states) {
  InterpreterStack whole;
  for (const uint64_t state : states) {
    if (!state || whole.status != LT_PY_END) break;
    InterpreterStack part = walk(state, nullptr);
    const size_t room = LT_MAX_PY - whole.frames.size();
    whole.status = part.frames.size() > room ? LT_PY_FULL : part.status;
    part.frames.resize(std::min(part.frames.size(), room));
    whole.frames.insert(whole.frames.end(), part.frames.begin(), part.frames.end());
  }
  return whole;
}

std::vector<lt_py_frame> CPython::without_shims(std::span<const lt_py_frame> frames) const {
  std::vector<lt_py_frame> kept;
  std::copy_if(frames.begin(), frames.end(), std::back_inserter(kept),
               [&](const lt_py_frame& frame) { return !is_shim(frame); });
  return kept;
}

bool CPython::learn(std::span<const lt_py_frame> frames) { return tasks_.learn(frames); }

// As with BPF's records the outer interpreter has the last word.
std::optional<lt_py_task> CPython::see_task(const ThreadStates& states) {
  std::optional<lt_py_task> seen;
  for (const uint64_t state : states) {
    if (auto task = state ? see_task(state) : std::nullopt) seen = task;
  }
  return seen;
}

std::optional<lt_py_task> CPython::see_task(uint64_t thread_state) {
  std::vector<uint64_t> addresses;
  const auto frames = walk(thread_state, &addresses).frames;
  const lt_py_task_config config = tasks_.config();
  Tasks::Watched watched;
  uint64_t called = 0;  // by the frame that is looked at
  for (size_t i = 0; i < frames.size(); ++i) {
    const auto runs = [&](const auto& known) { return known.code && known.code == frames[i].code; };
    if (!watched.handle && runs(config.handle)) watched.handle = addresses[i];
    if (!watched.handler && runs(config.handler)) watched.handler = addresses[i];
    if (runs(config.runner)) watched.ran = called;
    if (config.runner.code && !is_shim(frames[i])) called = addresses[i];
  }
  const lt_py_task seen = tasks_.read(thread_state, watched);
  if (!watched.handle && !watched.handler && !watched.ran && !seen.task) return std::nullopt;
  return seen;
}

std::optional<TaskInfo> CPython::task(std::span<const lt_py_frame> captured, const lt_py_task* seen) {
  const auto frames = without_shims(captured);
  TaskInfo info;
  if (const auto at = tasks_.coroutine(frames)) {
    const Frame place = resolve(frames[*at]);
    info.coroutine = place.function;
    info.file = place.file;
    info.line = place.line;
    if (seen) info.name = tasks_.name(*seen, frames[*at]);
  }
  info.handler = tasks_.handler(frames, seen);
  if (info.coroutine.empty() && info.handler.empty()) return std::nullopt;
  return info;
}

}  // namespace
}  // namespace cpython

std::unique_ptr<Runtime> detect_cpython(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning) {
  auto found = cpython::find_installation(pid, modules);
  if (!found) {
    warning = found.error().what;
    return nullptr;
  }
  if (!found->has_value()) return nullptr;
  auto cpython = std::make_unique<cpython::CPython>(pid, std::move(**found));
  cpython->look_at(modules);
  return cpython;
}

}  // namespace looptrace
