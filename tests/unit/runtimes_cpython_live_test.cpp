// SPDX-License-Identifier: Apache-2.0
// Real interpreters against their own account of where they are: every one of each minor version that is
// here.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../pythons.h"
#include "base/files.h"
#include "runtimes/remote_memory.h"
#include "runtimes/runtime.h"
#include "stacks/elf_object.h"
#include "stacks/user_unwinder.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using test::no_python;
using test::pythons;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

struct TruthFrame {
  int line = 0;
  std::string function, file;
};

struct Truth {
  std::string thread;
  pid_t tid = 0;
  std::vector<TruthFrame> frames;
  std::vector<std::string> task;  // name, coroutine, line, where created; empty = runs none
  std::string handler;            // Tornado's
};

// A running victim script, killed at the end. What it printed up to "ready" is its truth.
class Victim {
 public:
  Victim(const std::string& python, const std::vector<std::string>& arguments) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      std::vector<char*> argv = {const_cast<char*>(python.c_str())};
      for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
      argv.push_back(nullptr);
      execv(python.c_str(), argv.data());
      _exit(127);
    }
    close(ends[1]);
    read_truth(ends[0]);
    close(ends[0]);
  }
  ~Victim() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  pid_t pid() const { return pid_; }
  bool ready() const { return ready_; }
  const std::string& version() const { return version_; }
  const std::vector<Truth>& threads() const { return threads_; }

 private:
  void read_truth(int fd) {
    std::string text;
    char chunk[4096];
    ssize_t n = 0;
    while (!text.ends_with("ready\n") && (n = ::read(fd, chunk, sizeof chunk)) > 0) {
      text.append(chunk, static_cast<size_t>(n));
    }
    for (const auto line : split(text, '\n')) {
      const auto fields = split(line, '\t');
      if (fields[0] == "version") version_ = fields[1];
      if (fields[0] == "thread") {
        threads_.push_back({std::string(fields[1]), std::stoi(std::string(fields[2])), {}, {}, {}});
      }
      if (fields[0] == "frame") {
        threads_.back().frames.push_back(
            {std::stoi(std::string(fields[1])), std::string(fields[2]), std::string(fields[3])});
      }
      if (fields[0] == "task") threads_.back().task.assign(fields.begin() + 1, fields.end());
      if (fields[0] == "handler") threads_.back().handler = fields[1];
      if (fields[0] == "ready") ready_ = true;
    }
  }

  pid_t pid_ = -1;
  bool ready_ = false;
  std::string version_;
  std::vector<Truth> threads_;
};

std::string script(const char* name) { return std::string(TEST_DATA_DIR) + "/../victims/" + name; }

struct Target {
  ObjectCache cache;
  std::optional<ProcessModules> modules;
  std::optional<std::string> warning;
  std::unique_ptr<Runtime> runtime;

  explicit Target(pid_t pid) {
    auto loaded = ProcessModules::load(pid, cache);
    if (!loaded) return;
    modules = std::move(*loaded);
    runtime = detect_runtime(pid, *modules, warning);
  }
};

// The native stack of one thread by its registers, which ptrace tells.
std::vector<uint64_t> native_stack(pid_t pid, pid_t tid, const ProcessModules& modules, uint32_t& status) {
  if (ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) return {};
  ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
  waitpid(tid, nullptr, __WALL);
  user_regs_struct registers{};
  ptrace(PTRACE_GETREGS, tid, nullptr, &registers);
  auto stack = unwind(modules, {registers.rip, registers.rsp, registers.rbp}, memory_reader(pid), 2000);
  ptrace(PTRACE_DETACH, tid, nullptr, nullptr);
  status = stack.status;
  return stack.addresses;
}

class Live : public testing::TestWithParam<const char*> {
 protected:
  std::string version() const { return GetParam(); }
  int minor() const { return std::atoi(GetParam() + 2); }
  bool has_gil() const { return !version().ends_with("t"); }
};

void expect_frames(Runtime& runtime, const Truth& truth, int minor) {
  SCOPED_TRACE(truth.thread);
  const ThreadStates state = runtime.thread_states(truth.tid, {});
  ASSERT_NE(state[0], 0u);
  const auto [captured, status] = runtime.walk(state);
  EXPECT_EQ(status, captured.size() == LT_MAX_PY ? LT_PY_FULL : LT_PY_END);
  std::vector<Frame> frames;
  for (const auto& frame : captured) {
    if (!runtime.is_shim(frame)) frames.push_back(runtime.resolve(frame));
  }
  const size_t expected = captured.size() == LT_MAX_PY ? frames.size() : truth.frames.size();
  ASSERT_EQ(frames.size(), expected);
  for (size_t i = 0; i < expected; ++i) {
    SCOPED_TRACE("frame " + std::to_string(i));
    EXPECT_EQ(frames[i].function, truth.frames[i].function);
    EXPECT_EQ(frames[i].line, truth.frames[i].line) << frames[i].function;
    EXPECT_EQ(frames[i].file, truth.frames[i].file);
    EXPECT_EQ(frames[i].kind, FrameKind::python);
    const auto in = [&](const std::string& part) { return frames[i].file.find(part) != std::string::npos; };
    EXPECT_EQ(frames[i].origin, in("/dist-packages/")                         ? FrameOrigin::library
                                : in("/lib/python3." + std::to_string(minor)) ? FrameOrigin::runtime
                                                                              : FrameOrigin::application)
        << frames[i].file;
  }
}

// Every native eval frame must find its interpreter frames: as many of the one as there are entries.
void expect_entries(Runtime& runtime, const Truth& truth, pid_t pid, const ProcessModules& modules) {
  SCOPED_TRACE(truth.thread);
  uint32_t status = 0;
  const auto stack = native_stack(pid, truth.tid, modules, status);
  ASSERT_EQ(status, LT_UNWIND_END) << stack.size() << " frames";
  ptrdiff_t evals = 0;
  for (size_t i = 1; i < stack.size(); ++i) evals += runtime.is_eval(stack[i] - 1);
  const auto captured = runtime.walk(runtime.thread_states(truth.tid, {})).frames;
  const auto entries = std::count_if(captured.begin(), captured.end(),
                                     [&](const lt_py_frame& frame) { return runtime.is_entry(frame); });
  EXPECT_EQ(evals, entries) << captured.size() << " interpreter frames";
}

void survive_garbage(Runtime& runtime, const Victim& victim) {
  std::mt19937_64 random(23);
  std::vector<std::pair<uint64_t, uint64_t>> mappings;
  uint64_t elf_header = 0;
  const auto maps = read_file("/proc/" + std::to_string(victim.pid()) + "/maps");
  for (const auto line : split(*maps, '\n')) {
    uint64_t start = 0, end = 0;
    if (sscanf(std::string(line).c_str(), "%lx-%lx", &start, &end) != 2) continue;
    mappings.emplace_back(start, end);
    if (!elf_header && line.find('/') != line.npos) elf_header = start;
  }
  std::vector<lt_py_frame> good = runtime.walk(runtime.thread_states(victim.threads()[0].tid, {})).frames;
  for (int i = 0; i < 20000; ++i) {
    const auto& [start, end] = mappings[random() % mappings.size()];
    const uint64_t inside = start + random() % (end - start);
    lt_py_frame frame{inside, random(), 0, 0, 0};
    if (i % 4 == 1) frame.code &= ~uint64_t{7};
    if (i % 4 == 2) frame.code = random();
    if (i % 4 == 3) {
      frame = good[random() % good.size()];
      frame.instr += random() >> random() % 64;
    }
    const Frame resolved = runtime.resolve(frame);
    EXPECT_FALSE(resolved.function.empty());
    EXPECT_GE(resolved.line, 0);
    (void)runtime.is_shim(frame);
    if (i % 16 == 0) (void)runtime.walk(ThreadStates{frame.code});
  }
  EXPECT_EQ(runtime.resolve({8, 0, 0, 0, 0}).function, "?");
  EXPECT_EQ(runtime.thread_states(1, {})[0], 0u) << "a thread of another process";
  lt_process process{};
  runtime.configure(process);
  if (process.py.cframe < 0) {
    EXPECT_EQ(runtime.walk(ThreadStates{elf_header - static_cast<uint64_t>(process.py.frame)}).status,
              LT_PY_FAULT)
        << "where the frame should be is none: that is no end of a stack";
  }
}

void print_cost(Runtime& runtime, pid_t pid, const Victim& victim, const ProcessModules& modules) {
  std::optional<std::string> warning;
  auto start = Clock::now();
  const auto fresh = detect_runtime(pid, modules, warning);
  const double detect_us = microseconds_since(start);

  start = Clock::now();
  const ThreadStates state = runtime.thread_states(victim.threads()[0].tid, {});
  const double state_us = microseconds_since(start);
  start = Clock::now();
  const auto frames = runtime.walk(state).frames;
  const double walk_us = microseconds_since(start);

  start = Clock::now();
  for (const auto& frame : frames) (void)fresh->resolve(frame);
  const double cold_us = microseconds_since(start);
  constexpr int kRounds = 200;
  start = Clock::now();
  for (int i = 0; i < kRounds; ++i) {
    for (const auto& frame : frames) (void)fresh->resolve(frame);
  }
  const double warm_us = microseconds_since(start) / kRounds;
  const auto n = static_cast<double>(frames.size());
  printf(
      "%s: detect %.0f us, thread state %.0f us, walk %.2f us a frame, resolve %.2f us a new frame, "
      "%.3f us a known one\n",
      runtime.name().c_str(), detect_us, state_us, walk_us / n, cold_us / n, warm_us / n);
}

TEST_P(Live, BlockedThreads) {
  const auto interpreters = pythons(version());
  if (interpreters.empty()) GTEST_SKIP() << no_python(version());
  for (const auto& python : interpreters) {
    SCOPED_TRACE(python);
    const Victim victim(python, {script("py_nest.py")});
    ASSERT_TRUE(victim.ready());
    ASSERT_EQ(victim.threads().size(), 8u);
    Target target(victim.pid());
    ASSERT_TRUE(target.runtime) << target.warning.value_or("not recognised");
    EXPECT_EQ(target.runtime->name(), "cpython " + victim.version() + (has_gil() ? "" : "t"));
    lt_process process{};
    target.runtime->configure(process);
    EXPECT_EQ(process.py.minor, minor());
    EXPECT_NE(process.py.code_type, 0u);

    for (const auto& truth : victim.threads()) {
      expect_frames(*target.runtime, truth, minor());
      // The recursion is deeper than a walk.
      if (truth.thread != "in_recursion") {
        expect_entries(*target.runtime, truth, victim.pid(), *target.modules);
      }
    }
    survive_garbage(*target.runtime, victim);
    print_cost(*target.runtime, victim.pid(), victim, *target.modules);
  }
}

TEST_P(Live, RunningTask) {
  const auto interpreters = pythons(version());
  if (interpreters.empty()) GTEST_SKIP() << no_python(version());
  for (const auto& python : interpreters) {
    SCOPED_TRACE(python);
    const Victim victim(python, {"-W", "ignore", script("py_running.py")});
    ASSERT_TRUE(victim.ready());
    ASSERT_GE(victim.threads().size(), 8u);
    Target target(victim.pid());
    ASSERT_TRUE(target.runtime);
    Runtime& runtime = *target.runtime;
    const Truth& first = victim.threads()[0];
    EXPECT_EQ(runtime.see_task(runtime.thread_states(first.tid, {})).has_value(), minor() >= 14)
        << "up to 3.13 nothing can be seen before it was learned";
    EXPECT_TRUE(runtime.learn(runtime.walk(runtime.thread_states(first.tid, {})).frames));
    EXPECT_FALSE(runtime.learn(runtime.walk(runtime.thread_states(first.tid, {})).frames)) << "all is known";
    lt_process process{};
    runtime.configure(process);
    EXPECT_NE(process.py.task.handle.code, 0u);

    std::optional<lt_py_task> other;
    std::string other_coroutine;
    for (const Truth& truth : victim.threads()) {
      expect_frames(runtime, truth, minor());
      SCOPED_TRACE(truth.thread);
      const auto state = runtime.thread_states(truth.tid, {});
      const auto frames = runtime.walk(state).frames;
      const auto seen = runtime.see_task(state);
      ASSERT_TRUE(seen);
      const auto task = runtime.task(frames, &*seen);
      ASSERT_EQ(task.has_value(), !truth.task.empty());
      if (!task) continue;
      const auto known = [](const std::string& text) { return text.empty() ? "-" : text; };
      EXPECT_EQ(known(task->name), truth.task[0]);
      EXPECT_EQ(task->coroutine, truth.task[1]);
      EXPECT_EQ(std::to_string(task->line), truth.task[2]);
      const auto created = runtime.task_created_at(*seen);
      EXPECT_EQ(created ? created->function : "-", truth.task[3]);
      // Without what BPF sends, or with another Task's, the coroutine is known and the name is not.
      EXPECT_EQ(runtime.task(frames, nullptr)->name, "");
      if (other && other_coroutine != task->coroutine) {
        EXPECT_EQ(runtime.task(frames, &*other)->name, "");
      }
      other = seen;
      other_coroutine = task->coroutine;
    }
  }
}

TEST_P(Live, TasksOfGarbage) {
  const auto interpreters = pythons(version());
  if (interpreters.empty()) GTEST_SKIP() << no_python(version());
  const Victim victim(interpreters[0], {"-W", "ignore", script("py_running.py")});
  ASSERT_TRUE(victim.ready());
  Target target(victim.pid());
  ASSERT_TRUE(target.runtime);
  const auto frames = target.runtime->walk(target.runtime->thread_states(victim.threads()[0].tid, {})).frames;
  (void)target.runtime->learn(frames);
  const auto good = target.runtime->see_task(target.runtime->thread_states(victim.threads()[0].tid, {}));
  std::mt19937_64 random(23);
  for (int i = 0; i < 3000; ++i) {
    lt_py_task seen = good.value_or(lt_py_task{});
    std::array<uint8_t, sizeof seen> bytes;
    std::memcpy(bytes.data(), &seen, sizeof seen);
    for (int n = 0; n < 1 + i % 9; ++n) bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    std::memcpy(&seen, bytes.data(), sizeof seen);
    (void)target.runtime->task_created_at(seen);
    const auto task = target.runtime->task(frames, &seen);
    ASSERT_TRUE(task);
    EXPECT_EQ(task->coroutine, "blocks_at_once");
  }
}

TEST_P(Live, TornadoHandler) {
  size_t with_tornado = 0;
  for (const auto& python : pythons(version())) {
    SCOPED_TRACE(python);
    const Victim victim(python, {"-W", "ignore", script("py_tornado.py")});
    if (!victim.ready()) continue;
    ++with_tornado;
    ASSERT_GE(victim.threads().size(), 9u);
    Target target(victim.pid());
    ASSERT_TRUE(target.runtime);
    Runtime& runtime = *target.runtime;
    for (const Truth& truth : victim.threads())
      (void)runtime.learn(runtime.walk(runtime.thread_states(truth.tid, {})).frames);
    lt_process process{};
    runtime.configure(process);
    EXPECT_NE(process.py.task.handler.code, 0u);
    EXPECT_NE(process.py.task.runner.code, 0u);
    for (const Truth& truth : victim.threads()) {
      expect_frames(runtime, truth, minor());
      SCOPED_TRACE(truth.thread);
      const auto state = runtime.thread_states(truth.tid, {});
      const auto seen = runtime.see_task(state);
      ASSERT_TRUE(seen);
      const auto task = runtime.task(runtime.walk(state).frames, &*seen);
      EXPECT_EQ(task && !task->handler.empty() ? task->handler : "-", truth.handler);
    }
  }
  if (!with_tornado)
    GTEST_SKIP() << "no CPython " << version() << " with Tornado here (tests/provision e2e runtimes)";
}

// Times that one of the process's threads was seen to wait on a futex word, and on one in a GIL.
struct FutexWaits {
  int seen = 0, global = 0;
};

FutexWaits futex_waits(const Runtime& runtime, pid_t pid, pid_t tid, int samples) {
  FutexWaits waits;
  const std::string path = "/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/syscall";
  for (int i = 0; i < samples; ++i) {
    const auto text = read_file(path);
    long number = -1;
    uint64_t address = 0;
    if (text && sscanf(text->c_str(), "%ld %lx", &number, &address) == 2 && number == 202) {
      ++waits.seen;
      waits.global += runtime.is_global_lock(address);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  return waits;
}

// Who has the lock that the thread waits for; asked until there is an answer, which hands that change
// prevent.
std::optional<LockHolder> holder_seen(Runtime& runtime, pid_t pid, pid_t tid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/syscall";
  for (int i = 0; i < 1000; ++i) {
    const auto text = read_file(path);
    long number = -1;
    uint64_t address = 0;
    if (text && sscanf(text->c_str(), "%ld %lx", &number, &address) == 2 && number == 202) {
      const auto holder = runtime.global_lock_holder(address);
      if (holder && holder->tid != tid && !holder->frames.empty()) return holder;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return std::nullopt;
}

TEST_P(Live, GlobalLock) {
  const auto interpreters = pythons(version());
  if (interpreters.empty()) GTEST_SKIP() << no_python(version());
  for (const auto& python : interpreters) {
    SCOPED_TRACE(python);
    // A build without a GIL can be told to have it.
    std::vector<std::string> arguments = {script("py_gil.py")};
    if (!has_gil()) arguments.insert(arguments.begin(), {"-X", "gil=1"});
    const Victim victim(python, arguments);
    ASSERT_TRUE(victim.ready());
    Target target(victim.pid());
    ASSERT_TRUE(target.runtime);
    EXPECT_FALSE(target.runtime->is_global_lock(0));
    for (const auto& truth : victim.threads()) {
      SCOPED_TRACE(truth.thread);
      const bool contends = truth.thread != "blocked";
      const auto waits = futex_waits(*target.runtime, victim.pid(), truth.tid, contends ? 150 : 20);
      EXPECT_GT(waits.seen, 0);
      EXPECT_EQ(waits.global, contends ? waits.seen : 0);
      if (!contends) continue;
      const auto holder = holder_seen(*target.runtime, victim.pid(), truth.tid);
      ASSERT_TRUE(holder) << "in no wait";
      EXPECT_TRUE(
          fs::exists("/proc/" + std::to_string(victim.pid()) + "/task/" + std::to_string(holder->tid)));
      for (const lt_py_frame& frame : holder->frames) {
        if (target.runtime->is_shim(frame)) continue;
        EXPECT_NE(target.runtime->resolve(frame).function, "?");
      }
    }
  }
}

Frame native_frame(const ProcessModules& modules, uint64_t address) {
  Frame frame;
  const Module* module = modules.find(address);
  if (!module || !module->object) return frame;
  frame.module = module->object->name();
  frame.offset = address - module->bias;
  if (const auto symbol = module->object->find_symbol(frame.offset)) frame.function = symbol->name;
  return frame;
}

TEST_P(Live, GarbageCollector) {
  const auto interpreters = pythons(version());
  if (interpreters.empty()) GTEST_SKIP() << no_python(version());
  for (const auto& python : interpreters) {
    SCOPED_TRACE(python);
    const Victim victim(python, {script("py_gc.py")});
    ASSERT_TRUE(victim.ready());
    Target target(victim.pid());
    ASSERT_TRUE(target.runtime);
    int collecting = 0;
    constexpr int kSamples = 40;
    for (int i = 0; i < kSamples; ++i) {
      uint32_t status = 0;
      const auto stack = native_stack(victim.pid(), victim.pid(), *target.modules, status);
      const auto is_gc = [&](uint64_t address) {
        return target.runtime->is_gc(native_frame(*target.modules, address - 1));
      };
      collecting += std::any_of(stack.begin(), stack.end(), is_gc);
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
    EXPECT_GT(collecting, kSamples / 2);

    const Victim other(python, {script("py_nest.py")});
    Target blocked(other.pid());
    for (const auto& truth : other.threads()) {
      uint32_t status = 0;
      for (const uint64_t address : native_stack(other.pid(), truth.tid, *blocked.modules, status)) {
        const Frame frame = native_frame(*blocked.modules, address - 1);
        EXPECT_FALSE(blocked.runtime->is_gc(frame)) << frame.function;
      }
    }
  }
}

// The thread of `pid` that knows itself as `inner`.
pid_t outer_tid(pid_t pid, pid_t inner) {
  std::error_code error;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    const auto status = read_file(task.path() / "status");
    if (status && status->find("\t" + std::to_string(inner) + "\nNSpgid") != std::string::npos) {
      return std::stoi(task.path().filename());
    }
  }
  return 0;
}

TEST_P(Live, PidNamespace) {
  const auto interpreters = pythons(version());
  if (interpreters.empty()) GTEST_SKIP() << no_python(version());
  const std::string unshare = "/usr/bin/unshare";
  if (geteuid() != 0 || !fs::exists(unshare)) GTEST_SKIP() << "needs root and unshare";
  const Victim victim(unshare, {"--pid", "--fork", "--kill-child", interpreters[0], script("py_nest.py")});
  ASSERT_TRUE(victim.ready());
  const std::string parent = std::to_string(victim.pid());
  const pid_t pid = std::stoi(*read_file("/proc/" + parent + "/task/" + parent + "/children"));
  Target target(pid);
  ASSERT_TRUE(target.runtime);
  for (Truth truth : victim.threads()) {
    truth.tid = outer_tid(pid, truth.tid);
    ASSERT_NE(truth.tid, 0);
    expect_frames(*target.runtime, truth, minor());
  }
}

INSTANTIATE_TEST_SUITE_P(CPython, Live,
                         testing::Values("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.13t", "3.14",
                                         "3.14t", "3.15", "3.15t"),
                         [](const auto& info) { return "3_" + std::string(info.param + 2); });

TEST(Detect, RefusesOldVersionsWithAWarning) {
  bool any = false;
  for (const std::string version : {"2.7", "3.6", "3.7"}) {
    for (const auto& python : pythons(version)) {
      SCOPED_TRACE(python);
      any = true;
      const Victim victim(python, {"-c", "import os, time; os.write(1, b'ready\\n'); time.sleep(1000)"});
      ASSERT_TRUE(victim.ready());
      const Target target(victim.pid());
      EXPECT_FALSE(target.runtime);
      ASSERT_TRUE(target.warning);
      EXPECT_NE(target.warning->find("CPython " + version), std::string::npos) << *target.warning;
    }
  }
  if (!any) GTEST_SKIP() << "no CPython before 3.8 here";
}

TEST(Detect, AProcessWithoutPythonHasNoRuntimeAndNoWarning) {
  const Target target(getpid());
  ASSERT_TRUE(target.modules);
  EXPECT_FALSE(target.runtime);
  EXPECT_FALSE(target.warning);
}

}  // namespace
}  // namespace looptrace
