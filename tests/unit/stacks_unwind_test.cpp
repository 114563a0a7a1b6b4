// SPDX-License-Identifier: Apache-2.0
//
// A child blocked in a system call below functions that we know, unwound from outside to the thread's start.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "looptrace.h"
#include "stacks/elf_object.h"
#include "stacks/symbolizer.h"
#include "stacks/user_unwinder.h"

// Not inlined, and with something to do after the call, so that each has its frame. volatile: no tail calls.
volatile int g_steps;

extern "C" {
__attribute__((noinline)) void unwind_test_leaf() {
  pause();
  g_steps = g_steps + 1;
}
__attribute__((noinline)) void unwind_test_realigned() {
  alignas(64) volatile char buffer[256];
  buffer[g_steps & 15] = 1;
  unwind_test_leaf();
  g_steps = g_steps + buffer[0];
}
__attribute__((noinline)) void unwind_test_middle(int n) {
  volatile char* room = static_cast<char*>(__builtin_alloca(static_cast<size_t>(n) * 64));
  room[0] = 1;
  unwind_test_realigned();
  g_steps = g_steps + room[0];
}
__attribute__((noinline)) void unwind_test_outer(int n) {
  unwind_test_middle(n + 1);
  g_steps = g_steps + 2;
}
void unwind_test_on_signal(int) {
  unwind_test_outer(1);
  g_steps = g_steps + 3;
}
__attribute__((noinline)) void unwind_test_raises() {
  raise(SIGUSR1);
  g_steps = g_steps + 4;
}
void* unwind_test_thread(void*) {
  unwind_test_outer(3);
  g_steps = g_steps + 5;
  return nullptr;
}
}

namespace looptrace {
namespace {

// A child that runs `body`, stopped under ptrace once its `tid` sleeps in pause().
class StoppedChild {
 public:
  explicit StoppedChild(void (*body)()) {
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      body();
      _exit(0);
    }
  }
  ~StoppedChild() {
    kill(pid_, SIGKILL);
    // The leader is not reported dead before a traced thread has been reaped.
    if (traced_ && traced_ != pid_) waitpid(traced_, nullptr, __WALL);
    waitpid(pid_, nullptr, __WALL);
  }

  // False where ptrace is not allowed.
  bool stop(pid_t tid) {
    const std::string path = "/proc/" + std::to_string(pid_) + "/task/" + std::to_string(tid) + "/syscall";
    for (int i = 0; i < 500; ++i) {
      char text[32] = {};
      if (FILE* f = fopen(path.c_str(), "r")) {
        if (!fgets(text, sizeof text, f)) text[0] = 0;
        fclose(f);
      }
      if (atoi(text) == SYS_pause && text[0] != 'r') break;
      usleep(10000);
    }
    if (ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) return false;
    traced_ = tid;
    if (ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0) return false;
    int status;
    if (waitpid(tid, &status, __WALL) != tid) return false;
    return ptrace(PTRACE_GETREGS, tid, nullptr, &registers_) == 0;
  }

  // The only other thread of the child, once there is one.
  pid_t other_thread() const {
    for (int i = 0; i < 500; ++i, usleep(10000)) {
      for (pid_t tid = pid_ + 1; tid < pid_ + 64; ++tid) {
        const std::string path = "/proc/" + std::to_string(pid_) + "/task/" + std::to_string(tid);
        if (access(path.c_str(), F_OK) == 0) return tid;
      }
    }
    return 0;
  }

  pid_t pid() const { return pid_; }
  UnwindRegisters registers() const { return {registers_.rip, registers_.rsp, registers_.rbp}; }

 private:
  pid_t pid_ = -1;
  pid_t traced_ = 0;
  user_regs_struct registers_{};
};

struct Result {
  UnwoundStack stack;
  std::vector<std::string> functions;
};

Result unwind_child(const StoppedChild& child) {
  Result result;
  ObjectCache cache;
  const auto modules = ProcessModules::load(child.pid(), cache);
  EXPECT_TRUE(modules);
  const auto start = std::chrono::steady_clock::now();
  result.stack = unwind(*modules, child.registers(), memory_reader(child.pid()));
  const std::chrono::duration<double, std::micro> first = std::chrono::steady_clock::now() - start;
  const auto again = std::chrono::steady_clock::now();
  EXPECT_EQ(unwind(*modules, child.registers(), memory_reader(child.pid())).addresses,
            result.stack.addresses);
  const std::chrono::duration<double, std::micro> second = std::chrono::steady_clock::now() - again;
  Symbolizer symbolizer({});
  bool first_frame = true;
  for (const uint64_t address : result.stack.addresses) {
    std::vector<Frame> frames;
    symbolizer.user(child.pid(), *modules, address, !first_frame, frames);
    first_frame = false;
    result.functions.push_back(frames.back().function);
  }
  std::printf("%zu frames: %.0f us with building the rows, %.1f us again\n", result.stack.addresses.size(),
              first.count(), second.count());
  return result;
}

// The functions occur in this order, next to each other.
void expect_chain(const Result& result, const std::vector<std::string>& chain) {
  const auto& f = result.functions;
  std::string all;
  for (const auto& name : f) all += " " + name;
  EXPECT_NE(std::search(f.begin(), f.end(), chain.begin(), chain.end()), f.end()) << all;
}

TEST(Unwind, BlockedMainThreadReachesStart) {
  StoppedChild child([] { unwind_test_outer(2); });
  if (!child.stop(child.pid())) GTEST_SKIP() << "ptrace is not allowed here";
  const Result result = unwind_child(child);
  EXPECT_EQ(result.stack.status, LT_UNWIND_END);
  ASSERT_FALSE(result.functions.empty());
  EXPECT_NE(result.functions[0].find("pause"), std::string::npos) << result.functions[0];
  expect_chain(result,
               {"unwind_test_leaf", "unwind_test_realigned", "unwind_test_middle", "unwind_test_outer"});
  EXPECT_EQ(result.functions.back(), "_start");
}

TEST(Unwind, BlockedThreadReachesClone) {
  StoppedChild child([] {
    pthread_t thread;
    pthread_create(&thread, nullptr, unwind_test_thread, nullptr);
    pthread_join(thread, nullptr);
  });
  const pid_t tid = child.other_thread();
  ASSERT_NE(tid, 0);
  if (!child.stop(tid)) GTEST_SKIP() << "ptrace is not allowed here";
  const Result result = unwind_child(child);
  EXPECT_EQ(result.stack.status, LT_UNWIND_END);
  expect_chain(result, {"unwind_test_leaf", "unwind_test_realigned", "unwind_test_middle",
                        "unwind_test_outer", "unwind_test_thread"});
  EXPECT_NE(result.functions.back().find("clone"), std::string::npos) << result.functions.back();
}

TEST(Unwind, GoesThroughSignalFrames) {
  StoppedChild child([] {
    signal(SIGUSR1, unwind_test_on_signal);
    unwind_test_raises();
  });
  if (!child.stop(child.pid())) GTEST_SKIP() << "ptrace is not allowed here";
  const Result result = unwind_child(child);
  EXPECT_EQ(result.stack.status, LT_UNWIND_END);
  expect_chain(result, {"unwind_test_outer", "unwind_test_on_signal"});
  const auto& f = result.functions;
  EXPECT_NE(std::find(f.begin(), f.end(), "unwind_test_raises"), f.end());
  EXPECT_EQ(f.back(), "_start");
}

TEST(Unwind, SignalOnAnotherStack) {
  StoppedChild child([] {
    static char room[1 << 16];
    stack_t stack{room, 0, sizeof room};
    sigaltstack(&stack, nullptr);
    struct sigaction action {};
    action.sa_handler = unwind_test_on_signal;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, nullptr);
    unwind_test_raises();
  });
  if (!child.stop(child.pid())) GTEST_SKIP() << "ptrace is not allowed here";
  const Result result = unwind_child(child);
  EXPECT_EQ(result.stack.status, LT_UNWIND_END);
  EXPECT_EQ(result.functions.back(), "_start");
}

TEST(Unwind, ReportsWhereItStops) {
  ObjectCache cache;
  const auto modules = ProcessModules::load(getpid(), cache);
  ASSERT_TRUE(modules);
  const auto nothing = [](uint64_t, uint64_t&) { return false; };
  const auto at = reinterpret_cast<uint64_t>(&unwind_test_leaf);
  UnwoundStack s = unwind(*modules, {at, 0x1000, 0}, nothing);
  EXPECT_EQ(s.status, LT_UNWIND_READ_FAULT);
  EXPECT_EQ(s.addresses.size(), 1u);
  EXPECT_EQ(unwind(*modules, {0x10, 0x2000, 0x1000}, nothing).status, LT_UNWIND_NO_MODULE);
  // A frame pointer chain that never ends.
  const auto endless = [](uint64_t address, uint64_t& value) {
    value = address % 16 == 0 ? address + 16 : 0x10;
    return true;
  };
  s = unwind(*modules, {0x10, 0x1000, 0x1000}, endless, 100);
  EXPECT_EQ(s.status, LT_UNWIND_FULL);
  EXPECT_EQ(s.addresses.size(), 100u);
  // One that goes back.
  const auto back = [](uint64_t address, uint64_t& value) {
    value = address % 16 == 0 ? 0x1000 : 0x10;
    return true;
  };
  s = unwind(*modules, {0x10, 0x1000, 0x2000}, back);
  EXPECT_EQ(s.status, LT_UNWIND_NO_MODULE);
  const auto zero = [](uint64_t, uint64_t& value) {
    value = 0;
    return true;
  };
  EXPECT_EQ(unwind(*modules, {at, 0x1000, 0}, zero).status, LT_UNWIND_END);
}

}  // namespace
}  // namespace looptrace
