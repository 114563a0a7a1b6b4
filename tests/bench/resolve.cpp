// SPDX-License-Identifier: Apache-2.0
// What it takes to name each frame of a process's stacks for the first time: resolve PID, which must be
// blocked or busy deep in its code. Prints a JSON object: kind of frame -> how many, median, 99th percentile
// and worst time. What the tracer reads ahead of the program and the C library, while nobody waits, is under
// "read ahead", by pieces; the first frame of any other file, which reads its symbols and lines, under "first
// of FILE"; and a thousand places all over those two under "places of FILE".
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "looptrace.h"
#include "runtimes/runtime.h"
#include "stacks/elf_object.h"
#include "stacks/module.h"
#include "stacks/symbolizer.h"
#include "stacks/user_unwinder.h"

namespace looptrace {
namespace {

struct Times {
  std::vector<double> us;

  template <typename Work>
  void measure(Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
};

UnwoundStack stack_of(pid_t pid, const ProcessModules& modules) {
  user_regs_struct registers{};
  if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return {};
  ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr);
  waitpid(pid, nullptr, __WALL);
  ptrace(PTRACE_GETREGS, pid, nullptr, &registers);
  return unwind(modules, {registers.rip, registers.rsp, registers.rbp, {}, 0, true}, memory_reader(pid),
                2000);
}

int run(pid_t pid) {
  ObjectCache cache;
  const auto modules = ProcessModules::load(pid, cache);
  if (!modules) return 1;
  std::optional<std::string> warning;
  const auto runtime = detect_runtime(pid, *modules, warning);
  std::map<std::string, Times> times;
  const UnwoundStack stack = stack_of(pid, *modules);  // and keeps it stopped, so that all holds still
  if (runtime) {
    for (const lt_py_frame& frame : runtime->walk(runtime->thread_states(pid, {})).frames) {
      if (!runtime->is_shim(frame)) times["python"].measure([&] { (void)runtime->resolve(frame); });
    }
    for (const UnwoundStack::Pointers& pointers : stack.uncovered) {
      const auto frame = runtime->read_slots(pointers);
      if (!frame) continue;
      times["javascript"].measure([&] { (void)runtime->name_frames({stack.addresses, {&*frame, 1}}); });
    }
  }
  Symbolizer symbolizer({});
  std::set<const ElfObject*> seen;
  for (const Module& module : modules->all()) {
    if (!module.object || !(module.object->is_main_program() || module.object->name().starts_with("libc.so")))
      continue;
    times["read ahead"].measure([&] { symbolizer.want(module.object); });
    while (symbolizer.has_more_to_read()) times["read ahead"].measure([&] { symbolizer.read_on(); });
    seen.insert(module.object.get());
  }
  const auto ahead = seen;
  for (const uint64_t address : stack.addresses) {
    const Module* module = modules->find(address - 1);
    if (!module || !module->object || (runtime && runtime->is_eval(address - 1))) continue;
    const std::string what =
        seen.insert(module->object.get()).second ? "first of " + module->object->name() : "native";
    std::vector<Frame> frames;
    times[what].measure([&] { symbolizer.user(pid, *modules, address, true, frames); });
  }
  ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
  std::mt19937 random(1);
  for (const Module& module : modules->all()) {
    if (!ahead.contains(module.object.get()) || module.rows()->empty()) continue;
    Times& places = times["places of " + module.object->name()];
    for (int i = 0; i < 1000; ++i) {
      const lt_row& row = (*module.rows())[random() % module.rows()->size()];
      std::vector<Frame> frames;
      places.measure([&] { symbolizer.user(pid, *modules, row.pc + module.bias, false, frames); });
    }
  }
  const char* separator = "{";
  for (auto& [what, t] : times) {
    std::sort(t.us.begin(), t.us.end());
    std::printf("%s\"%s\":{\"frames\":%zu,\"median_us\":%.1f,\"p99_us\":%.1f,\"worst_us\":%.1f}", separator,
                what.c_str(), t.us.size(), t.us[t.us.size() / 2], t.us[t.us.size() * 99 / 100], t.us.back());
    separator = ",";
  }
  std::printf("%s}\n", times.empty() ? "{" : "");
  return 0;
}

}  // namespace
}  // namespace looptrace

int main(int argc, char** argv) {
  if (argc == 2) return looptrace::run(std::atoi(argv[1]));
  std::fprintf(stderr, "usage: bench_resolve PID\n");
  return 2;
}
