// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/tasks.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "runtimes/cpython/py_string.h"

namespace looptrace::cpython {
namespace {

constexpr uint32_t kCoroutine = 0x80;           // CO_COROUTINE
constexpr uint32_t kIterableCoroutine = 0x100;  // CO_ITERABLE_COROUTINE: types.coroutine()
// Offsets from where an object's own members begin (Offsets::head()).
constexpr int kHandleCallback =
    8;  // Handle has __slots__, which lie in the order of their names: _args, _callback
constexpr int kMethodSelf = 8;  // of a bound method, of C or Python
constexpr int kTypeName = 8;
constexpr int kTypeBase = 240;
constexpr int kTypeMro = 328;

constexpr size_t kMaxMet = 16384;
constexpr size_t kMaxBases = 8;
constexpr size_t kMaxMro = 64;
constexpr size_t kMaxSummaries = 64;

// PyCodeObject of 3.8 to 3.10.
constexpr uint64_t kCodeLocals = 28;
constexpr uint64_t kCodeCells = 88;
constexpr uint64_t kCodeCellArguments = 96;

// A function by the end of its qualified name: older versions keep the plain name only.
bool is_called(const Code& code, std::string_view owner, std::string_view name) {
  const std::string_view function = code.function;
  if (function == name) return true;
  return function.size() == owner.size() + 1 + name.size() && function.starts_with(owner) &&
         function[owner.size()] == '.' && function.ends_with(name);
}

bool is_handle_run(const Code& code) {
  return is_called(code, "Handle", "_run") && code.source->file.ends_with("/asyncio/events.py");
}

bool is_tornado_execute(const Code& code) {
  return is_called(code, "RequestHandler", "_execute") && code.source->file.ends_with("/tornado/web.py");
}

// What steps a gen.coroutine from its first yield on.
bool is_tornado_run(const Code& code) {
  return is_called(code, "Runner", "run") && code.source->file.ends_with("/tornado/gen.py");
}

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

bool is_handler_method(const Code& code) {
  static constexpr std::array<std::string_view, 10> kMethods = {
      "get", "post", "put", "delete", "patch", "head", "options", "prepare", "on_finish", "write_error"};
  return std::find(kMethods.begin(), kMethods.end(), last_part(code.function)) != kMethods.end();
}

bool is_of_asyncio_tasks(const Code& code) { return code.source->file.ends_with("/asyncio/tasks.py"); }

template <typename T>
T load(std::span<const uint8_t> bytes, size_t at) {
  T value{};
  if (at + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

const Code* Tasks::code_of(const lt_py_frame& frame) const { return codes_.find(frame); }

bool Tasks::is_coroutine(const lt_py_frame& frame) const {
  const Code* code = code_of(frame);
  return code && (code->flags & (kCoroutine | kIterableCoroutine));
}

// Where a frame of the function keeps its first argument. Up to 3.10 an argument that a closure uses is moved
// to a cell behind the locals; later its place among the locals holds the cell.
int Tasks::self_offset(uint64_t code) const {
  const Offsets& o = python_.offsets;
  if (o.minor > 10) return o.frame.locals;
  const uint64_t arguments = memory_.pointer(code + kCodeCellArguments);
  const uint64_t cells = memory_.pointer(code + kCodeCells);
  if (!arguments || !cells) return o.frame.locals;
  const auto count = std::min<uint64_t>(memory_.pointer(cells + 16), 64);  // a tuple's size
  const auto locals = static_cast<uint64_t>(memory_.get<uint32_t>(code + kCodeLocals).value_or(0));
  for (uint64_t i = 0; i < count; ++i) {
    if (memory_.get<int64_t>(arguments + 8 * i) != 0) continue;
    return o.frame.locals + static_cast<int>(8 * std::min<uint64_t>(locals + i, 4096));
  }
  return o.frame.locals;
}

bool Tasks::learn(std::span<const lt_py_frame> frames) {
  bool found = false;
  for (const lt_py_frame& frame : frames) {
    if (!frame.code ||
        !met_.insert(frame.code ^ uint64_t{frame.firstlineno} << 44 ^ uint64_t{frame.names} << 48).second)
      continue;
    const Code* code = code_of(frame);
    if (!code) continue;
    lt_py_watch* watch = is_handle_run(*code)        ? &handle_
                         : is_tornado_execute(*code) ? &handler_
                         : is_tornado_run(*code)     ? &runner_
                                                     : nullptr;
    if (!watch || watch->code) continue;
    watch->code = frame.code & python_.offsets.code_mask();
    // Up to 3.10 one that a closure uses is not found in what the runner runs.
    watch->self = watch == &runner_ ? python_.offsets.frame.locals : self_offset(watch->code);
    found = true;
  }
  if (met_.size() > kMaxMet) met_.clear();
  return found;
}

lt_py_task_config Tasks::config() const {
  const Offsets& o = python_.offsets;
  return {.handle = handle_,
          .handler = handler_,
          .runner = runner_,
          .cell_type = python_.cell_type,
          .function_type = python_.function_type,
          .method_type = python_.method_type,
          .running = asyncio_ ? asyncio_->running_task : -1,
          .ob_type = o.ob_type,
          .callback = o.head() + kHandleCallback,
          .coro = asyncio_ ? asyncio_->coro : o.task.coro,
          .name = asyncio_ ? asyncio_->name : o.task.name,
          .coro_code = o.task.coro_code};
}

uint64_t Tasks::self_of(const lt_py_watch& watch, uint64_t frame) const {
  const uint64_t self =
      memory_.pointer(frame + static_cast<uint64_t>(watch.self)) & python_.offsets.code_mask();
  if (!self || !python_.cell_type || type_of(self) != python_.cell_type) return self;
  return memory_.pointer(self + static_cast<uint64_t>(python_.offsets.head()));
}

uint64_t Tasks::type_of(uint64_t object) const {
  return memory_.pointer(object + static_cast<uint64_t>(python_.offsets.ob_type));
}

uint64_t Tasks::running_task(uint64_t thread_state, uint64_t handle) const {
  const lt_py_task_config c = config();
  if (c.running >= 0) return memory_.pointer(thread_state + static_cast<uint64_t>(c.running));
  const uint64_t self = handle && c.name >= 0 ? self_of(handle_, handle) : 0;
  const uint64_t callback = self ? memory_.pointer(self + static_cast<uint64_t>(c.callback)) : 0;
  if (!callback) return 0;
  const uint64_t type = type_of(callback);
  const bool method = type == c.function_type || type == c.method_type;
  return memory_.pointer(callback +
                         static_cast<uint64_t>(python_.offsets.head() + (method ? kMethodSelf : 0)));
}

lt_py_task Tasks::read(uint64_t thread_state, const Watched& frames) const {
  const lt_py_task_config c = config();
  lt_py_task seen{};
  const uint64_t self = frames.handler ? self_of(handler_, frames.handler)
                        : frames.ran   ? self_of(runner_, frames.ran)
                                       : 0;
  if (self) seen.handler_type = type_of(self);
  seen.task = running_task(thread_state, frames.handle);
  if (!seen.task) return seen;
  seen.task_type = type_of(seen.task);
  seen.coro = memory_.pointer(seen.task + static_cast<uint64_t>(c.coro));
  seen.name = memory_.pointer(seen.task + static_cast<uint64_t>(c.name));
  if (seen.coro) seen.coro_code = memory_.pointer(seen.coro + static_cast<uint64_t>(c.coro_code));
  if (seen.name) {
    seen.name_bytes = static_cast<uint32_t>(memory_.read_some(seen.name, seen.name_object, LT_TASK_NAME_LEN));
  }
  return seen;
}

std::optional<size_t> Tasks::coroutine(std::span<const lt_py_frame> frames) const {
  size_t handle = frames.size();
  for (size_t i = 0; i < frames.size() && handle == frames.size(); ++i) {
    if (const Code* code = code_of(frames[i]); code && is_handle_run(*code)) handle = i;
  }
  // Without a handle the outermost frames must all be there.
  if (handle == frames.size() && frames.size() >= LT_MAX_PY) return std::nullopt;
  std::optional<size_t> found;
  bool eager = false;
  for (size_t i = handle; i-- > 0;) {
    const Code* code = code_of(frames[i]);
    if (!code) break;
    const bool of_tasks = is_of_asyncio_tasks(*code);
    // A Task that an eager task factory starts runs inside the one that creates it.
    if (of_tasks && last_part(code->function) == "factory") {
      eager = true;
      continue;
    }
    if (is_coroutine(frames[i])) {
      if (!found || eager) found = i;
      eager = false;
      continue;
    }
    // Between handle and coroutine only a Task of Python code may stand: else a plain callback was called.
    if (!found && handle != frames.size() && !of_tasks) return std::nullopt;
  }
  return found;
}

std::string Tasks::handler(std::span<const lt_py_frame> frames, const lt_py_task* seen) const {
  const Code *execute = nullptr, *method = nullptr, *inner = nullptr, *ran = nullptr;
  for (const lt_py_frame& frame : frames) {
    const Code* code = code_of(frame);
    if (code && is_tornado_execute(*code)) {
      execute = code;
      break;
    }
    if (code && is_tornado_run(*code)) ran = inner;
    // The outermost with a method's name: decorators may stand around it.
    if (code && is_handler_method(*code)) method = code;
    inner = code;
  }
  // The class of the handler itself: a method's qualified name tells where it was defined.
  const uint64_t type = seen ? seen->handler_type : 0;
  if (!execute) {
    // Other coroutines have such names, too.
    if (!ran || !is_handler_method(*ran) || !is_handler_type(type)) return {};
    method = ran;
  }
  std::string name = type_name(type);
  if (!method) return name;
  const std::string_view function = method->function;
  if (name.empty()) return std::string(last_part(function) == function ? "" : function);
  return name + "." + std::string(last_part(function));
}

std::string Tasks::type_name(uint64_t type) const {
  std::array<char, 128> text;
  const auto at = static_cast<uint64_t>(python_.offsets.head()) + kTypeName;
  const uint64_t name = type % 8 == 0 && type ? memory_.pointer(type + at) : 0;
  const size_t size = name ? memory_.read_some(name, text.data(), text.size()) : 0;
  const auto end = std::find(text.begin(), text.begin() + static_cast<ptrdiff_t>(size), '\0');
  if (end == text.begin() + static_cast<ptrdiff_t>(size)) return {};
  return std::string(last_part({text.data(), static_cast<size_t>(end - text.begin())}));
}

bool Tasks::is_handler_type(uint64_t type) const {
  const auto head = static_cast<uint64_t>(python_.offsets.head());
  const uint64_t mro = type ? memory_.pointer(type + head + kTypeMro) : 0;
  const uint64_t size = mro % 8 == 0 && mro ? memory_.pointer(mro + head) : 0;
  if (size > kMaxMro) return false;
  // From 3.14 on a tuple's items are behind its hash.
  for (uint64_t i = 0; i < size + 1; ++i) {
    if (type_name(memory_.pointer(mro + head + 8 + 8 * i)) == "RequestHandler") return true;
  }
  return false;
}

bool Tasks::is_task_type(uint64_t type) const {
  const auto head = static_cast<uint64_t>(python_.offsets.head());
  for (size_t i = 0; type && i < kMaxBases; ++i) {
    std::array<char, 14> text{};  // "_asyncio.Task" and its end
    const uint64_t name = type % 8 == 0 ? memory_.pointer(type + head + kTypeName) : 0;
    if (!name || !memory_.read(name, text.data(), text.size())) return false;
    if (std::string_view(text.data(), text.size()) == std::string_view("_asyncio.Task\0", 14)) return true;
    type = memory_.pointer(type + head + kTypeBase);
  }
  return false;
}

// Not negative, of at most two digits of 30 bits.
std::optional<int64_t> Tasks::small_int(std::span<const uint8_t> object) const {
  const auto head = static_cast<size_t>(python_.offsets.head());
  const auto tag = load<uint64_t>(object, head);  // a count of digits; 3.12+: and 3 bits, 0 = positive
  const bool tagged = python_.offsets.minor >= 12;
  const uint64_t digits = tagged ? tag >> 3 : tag;
  if (object.size() < head + 16 || (tagged && (tag & 3)) || digits < 1 || digits > 2) return std::nullopt;
  const int64_t low = load<uint32_t>(object, head + 8), high = load<uint32_t>(object, head + 12);
  return digits == 1 ? low : low | high << 30;
}

std::string Tasks::name(const lt_py_task& seen, const lt_py_frame& coroutine) const {
  const uint64_t code = coroutine.code & python_.offsets.code_mask();
  if (!seen.task || (seen.coro_code & python_.offsets.code_mask()) != code || !is_task_type(seen.task_type)) {
    return {};
  }
  return name_text({seen.name_object, std::min<size_t>(seen.name_bytes, LT_TASK_NAME_LEN)});
}

std::string Tasks::name_text(std::span<const uint8_t> object) const {
  const auto type = load<uint64_t>(object, static_cast<size_t>(python_.offsets.ob_type));
  if (type && type == python_.str_type) return decode_string(python_.offsets, object).value_or("");
  // 3.12 and later make the text when they are asked for it.
  if (type && type == python_.int_type) {
    if (const auto number = small_int(object)) return "Task-" + std::to_string(*number);
  }
  return {};
}

// A traceback.FrameSummary has __slots__, which lie in the order of their names: ... filename, lineno,
// locals, name, with others before them that depend on the version.
std::optional<TaskInfo::Place> Tasks::summary(uint64_t object) const {
  std::array<uint64_t, 20> words{};
  if (object % 8 != 0 || memory_.read_some(object, words.data(), sizeof words) < 64) return std::nullopt;
  const auto is = [&](uint64_t value, uint64_t type) {
    return value && value % 8 == 0 && type && type_of(value) == type;
  };
  for (size_t i = static_cast<size_t>(python_.offsets.head()) / 8; i + 3 < words.size(); ++i) {
    if (!is(words[i], python_.str_type) || !is(words[i + 1], python_.int_type) ||
        !is(words[i + 3], python_.str_type)) {
      continue;
    }
    std::array<uint8_t, 48> line{};
    const auto size = static_cast<size_t>(python_.offsets.head()) + 16;
    const auto file = read_string(memory_, python_.offsets, words[i]);
    const auto name = read_string(memory_, python_.offsets, words[i + 3]);
    if (!file || !name || !memory_.read(words[i + 1], line.data(), size)) return std::nullopt;
    const auto number = small_int({line.data(), size});
    if (!number || *number > INT32_MAX) return std::nullopt;
    return TaskInfo::Place{*name, *file, static_cast<int>(*number)};
  }
  return std::nullopt;
}

std::optional<TaskInfo::Place> Tasks::created_at(const lt_py_task& seen) const {
  const Offsets& o = python_.offsets;
  const auto head = static_cast<uint64_t>(o.head());
  const lt_py_task_config c = config();
  const uint64_t task = seen.task;
  const uint64_t list = task ? memory_.pointer(task + static_cast<uint64_t>(o.task.source_traceback)) : 0;
  // A traceback.StackSummary is a list: its size, its items.
  if (!list || list % 8 != 0 || type_name(type_of(list)) != "StackSummary") return std::nullopt;
  const uint64_t size = memory_.pointer(list + head), items = memory_.pointer(list + head + 8);
  std::optional<TaskInfo::Place> found;
  for (uint64_t n = 0; n < std::min<uint64_t>(size, kMaxSummaries); ++n) {
    auto place = summary(memory_.pointer(items + 8 * (size - 1 - n)));
    if (!place) break;
    const bool own = classify_source(place->file).origin != FrameOrigin::runtime;
    if (own || !found) found = std::move(place);
    if (own) break;  // who asked asyncio for it
  }
  // Another Task may have come to lie there since.
  std::array<uint8_t, LT_TASK_NAME_LEN> name{};
  const size_t bytes = memory_.read_some(seen.name, name.data(), name.size());
  const bool same = c.name >= 0 && type_of(task) == seen.task_type &&
                    memory_.pointer(task + static_cast<uint64_t>(c.coro)) == seen.coro &&
                    memory_.pointer(task + static_cast<uint64_t>(c.name)) == seen.name &&
                    name_text({name.data(), bytes}) ==
                        name_text({seen.name_object, std::min<size_t>(seen.name_bytes, name.size())});
  return same ? found : std::nullopt;
}

}  // namespace looptrace::cpython
