// SPDX-License-Identifier: Apache-2.0
#include "trace/target_check.h"

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "looptrace.h"
#include "runtimes/runtime.h"
#include "stacks/eh_frame.h"
#include "stacks/elf_object.h"
#include "stacks/module.h"
#include "stacks/user_unwinder.h"
#include "targets/process.h"
#include "trace/eval_frames.h"
#include "trace/off_cpu_place.h"
#include "trace/stack_tally.h"

namespace looptrace {
namespace {

constexpr size_t kMaxThreads = 256;  // walked; a process with more is judged by these
constexpr size_t kMaxNamed = 8;      // files listed by name

// Of a thread's context switches; it has not run while this stays the same.
std::string switches_of(const ProcFs& procfs, pid_t pid, pid_t tid) {
  const auto status = procfs.read(pid, "task/" + std::to_string(tid) + "/status");
  if (!status) return {};
  const size_t at = status->find("voluntary_ctxt_switches");
  return at == std::string::npos ? std::string() : status->substr(at);
}

std::string in_words(size_t n, const char* one, const char* many) {
  return std::to_string(n) + " " + (n == 1 ? one : many);
}

std::string list(const std::set<std::string>& names) {
  std::string text;
  size_t n = 0;
  for (const std::string& name : names) {
    if (n++ == kMaxNamed) return text + " and " + std::to_string(names.size() - kMaxNamed) + " more";
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

std::string place_name(const ProcessModules& modules, uint64_t address) {
  const Module* module = modules.find(address);
  char text[32];
  std::snprintf(text, sizeof text, "%#llx",
                static_cast<unsigned long long>(module ? address - module->bias : address));
  if (!module || !module->object) return std::string(text) + ", which no file maps";
  return module->object->name() + "+" + text;
}

Capability check_mappings(const ProcessModules& modules) {
  size_t anonymous = 0;
  for (const Module& m : modules.all()) anonymous += m.path.empty();
  const size_t n = modules.all().size();
  Capability c{
      "mappings", n <= LT_MAX_MODULES, false, in_words(n, "executable mapping", "executable mappings"), {}};
  if (anonymous) c.detail += ", " + std::to_string(anonymous) + " without a file (JIT code or trampolines)";
  if (!c.available) {
    c.mend = "stacks through all but the first " + std::to_string(LT_MAX_MODULES) +
             " are cut short: map less code, or one JIT area";
  }
  return c;
}

struct Tables {
  Capability rows, files;
};

Tables check_tables(const ProcessModules& modules) {
  size_t rows = 0, unsupported = 0, files = 0;
  std::set<std::string> without, with_unsupported;
  std::set<const ElfObject*> seen;
  for (const Module& m : modules.all()) {
    if (!m.object || !seen.insert(m.object.get()).second) continue;
    const auto& table = m.object->rows();
    if (table.empty()) {
      without.insert(m.object->name());
      continue;
    }
    ++files;
    rows += table.size();
    for (const lt_row& row : table) {
      if (row.kind != LT_ROW_UNSUPPORTED) continue;
      ++unsupported;
      with_unsupported.insert(m.object->name());
    }
  }
  Tables t;
  t.rows = {"unwind_rows",
            rows > 0,
            false,
            in_words(rows, "row", "rows") + " of " + in_words(files, "file", "files"),
            {}};
  if (unsupported)
    t.rows.detail += "; " + std::to_string(unsupported) + " unsupported, in " + list(with_unsupported);
  if (!rows) t.rows.mend = "frame pointers are all there is to go by";
  t.files = {"files_without_cfi", without.empty(), false, without.empty() ? "none" : list(without), {}};
  if (!without.empty())
    t.files.mend = "their stacks are walked by frame pointer: right for Go and for -fno-omit-frame-pointer";
  return t;
}

// Whether the walk ended in code of a file that no table covers: a trace, too, has only rbp to go by there.
bool ends_without_tables(const ProcessModules& modules, const UnwoundStack& stack) {
  const uint64_t address = stack.addresses.back() - 1;
  const Module* module = modules.find(address);
  if (!module || !module->object) return false;
  const std::vector<lt_row>* rows = module->rows();
  return !rows || find_row(*rows, address - module->bias).kind == LT_ROW_GAP;
}

// How the interpreter's frames go with the native stack, which a greenlet's first frame ends.
uint32_t walk_interpreter(Runtime& runtime, const ProcessModules& modules, pid_t tid, uint64_t sp,
                          UnwoundStack& native, bool interrupted) {
  const auto match = [&](std::span<const lt_py_frame> frames) {
    return match_eval_frames(runtime, {native.addresses, interrupted}, frames);
  };
  const ThreadStates states = runtime.thread_states(tid, {sp, match({}).native});
  const InterpreterStack stack = runtime.walk(states);
  end_at_greenlet(runtime, modules, {states[0] != 0, stack.status, stack.frames}, interrupted,
                  native.addresses, native.status);
  lt_capture_head head{};
  head.unwind_status = native.status;
  head.py_status = stack.status;
  if (stack.status == LT_PY_END && !match(stack.frames).agree()) head.py_status = LT_PY_MISMATCH;
  return walk_status(head);
}

Capability check_stacks(const ProcFs& procfs, pid_t pid, ProcessModules& modules, Runtime* runtime) {
  size_t whole = 0, walked = 0, running = 0;
  std::map<std::string, size_t> ends;
  std::string example;
  size_t looked_at = 0;
  for (const pid_t tid : procfs.threads(pid)) {
    if (looked_at++ == kMaxThreads) break;
    const std::string before = switches_of(procfs, pid, tid);
    const auto place = off_cpu_place(procfs, pid, tid);
    if (!place) {
      ++running;
      continue;
    }
    UnwindRegisters registers{place->ip, place->sp, 0, {}, 0, false};
    UnwoundStack stack = unwind(modules, registers, memory_reader(pid), LT_MAX_USER);
    // It may have met code that was compiled since.
    if (stack.status == LT_UNWIND_UNSUPPORTED && runtime && runtime->cover(modules))
      stack = unwind(modules, registers, memory_reader(pid), LT_MAX_USER);
    uint32_t status = stack.status;
    if (runtime) {
      const bool interrupted = place->nr < 0;
      status = walk_interpreter(*runtime, modules, tid, place->sp, stack, interrupted);
    }
    const auto after = off_cpu_place(procfs, pid, tid);
    if (after != place || switches_of(procfs, pid, tid) != before) {
      ++running;
      continue;
    }
    ++walked;
    if (status == LT_UNWIND_END) {
      ++whole;
      continue;
    }
    const bool without_tables = stack.lacks_bp && ends_without_tables(modules, stack);
    ++ends[without_tables   ? "frame_without_tables"
           : stack.lacks_bp ? "rbp_not_known_from_outside"
                            : unwind_status_name(status)];
    if (example.empty() && (!stack.lacks_bp || without_tables) && stack.status != LT_UNWIND_END)
      example = place_name(modules, stack.addresses.back());
  }
  Capability c{"stacks", true, false, {}, {}};
  c.detail = std::to_string(whole) + " of " + in_words(walked, "blocked thread", "blocked threads") +
             " walked to the thread's start";
  for (const auto& [why, n] : ends) c.detail += "; " + std::to_string(n) + " " + why;
  if (running) c.detail += "; " + std::to_string(running) + " ran";
  // What /proc does not tell, a trace has.
  c.available = example.empty() && !ends.contains(unwind_status_name(kInterpreterMismatch));
  if (!example.empty()) {
    c.mend = "the first walk that broke off did so at " + example;
  } else if (!c.available) {
    c.mend =
        "the interpreter's frames are not all found: a thread runs another interpreter, made by another "
        "thread";
  }
  return c;
}

}  // namespace

std::vector<Capability> check_target(const ProcFs& procfs, pid_t pid) {
  const auto facts = read_process(procfs, pid, kPartExe);
  if (!facts) return {};
  std::vector<Capability> found;
  ObjectCache cache;
  auto modules = ProcessModules::load(pid, cache);
  std::unique_ptr<Runtime> runtime;
  Capability process{"process", modules.has_value(), false, facts->comm + ", " + facts->exe, {}};
  if (modules) {
    std::optional<std::string> warning;
    runtime = detect_runtime(pid, *modules, warning);
    process.detail += runtime ? ", " + runtime->name() : ", native";
    if (runtime) runtime->cover(*modules);
    if (warning) {
      process.available = false;
      process.mend = *warning;
    }
  } else {
    process.mend = modules.error().message();
  }
  found.push_back(std::move(process));
  if (modules) {
    found.push_back(check_mappings(*modules));
    Tables tables = check_tables(*modules);
    found.push_back(std::move(tables.rows));
    found.push_back(std::move(tables.files));
    found.push_back(check_stacks(procfs, pid, *modules, runtime.get()));
  }
  for (Capability& c : found) c.name = "pid " + std::to_string(pid) + " " + c.name;
  return found;
}

}  // namespace looptrace
