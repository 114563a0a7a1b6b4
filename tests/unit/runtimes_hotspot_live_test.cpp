// SPDX-License-Identifier: Apache-2.0
// A real JVM: its busy thread is stopped at random moments by ptrace. Walks must reach the thread's start,
// through interpreted and compiled code, and name the methods.
//
// LOOPTRACE_ORACLE_STACKS sets how many stacks are taken.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>

#include "base/files.h"
#include "runtimes/runtime.h"
#include "stacks/user_unwinder.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

size_t stacks_wanted() {
  const char* text = std::getenv("LOOPTRACE_ORACLE_STACKS");
  return text ? std::strtoul(text, nullptr, 10) : 600;
}

class Jvm {
 public:
  Jvm() {
    pid_ = fork();
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int null = open("/dev/null", O_RDWR);
    for (const int fd : {0, 1, 2}) dup2(null, fd);
    const std::string source = std::string(TEST_DATA_DIR) + "/../victims/JavaWork.java";
    execlp("java", "java", source.c_str(), nullptr);
    _exit(127);
  }
  ~Jvm() {
    kill(pid_, SIGKILL);
    while (waitpid(-1, nullptr, __WALL) > 0) {
    }  // a traced thread must be waited for before its process
  }
  pid_t pid() const { return pid_; }

  // The thread called "work", once it is there.
  pid_t worker() const {
    for (int i = 0; i < 600; ++i) {
      std::error_code error;
      for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid_) + "/task", error)) {
        const auto comm = read_file(task.path().string() + "/comm");
        if (comm && trim(*comm) == "work") return std::stoi(task.path().filename().string());
      }
      usleep(50'000);
    }
    return -1;
  }

 private:
  pid_t pid_;
};

bool stop(pid_t tid, user_regs_struct& registers) {
  if (ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0) return false;
  for (;;) {
    int status = 0;
    if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status)) return false;
    if (status >> 16 == PTRACE_EVENT_STOP) break;
    ptrace(PTRACE_CONT, tid, nullptr, WSTOPSIG(status));  // the JVM's own signals
  }
  return ptrace(PTRACE_GETREGS, tid, nullptr, &registers) == 0;
}

TEST(HotspotLive, StacksReachTheThreadsStartAndNameTheMethods) {
  if (std::system("java -version >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "no java here (tests/provision runtimes)";
  const Jvm jvm;
  const pid_t worker = jvm.worker();
  ASSERT_GT(worker, 0);
  usleep(3'000'000);  // what is hot has been compiled
  ObjectCache cache;
  std::optional<std::string> warning;
  auto modules = ProcessModules::load(jvm.pid(), cache);
  ASSERT_TRUE(modules);
  const auto runtime = detect_runtime(jvm.pid(), *modules, warning);
  ASSERT_TRUE(runtime) << warning.value_or("not recognised");
  EXPECT_TRUE(runtime->name().starts_with("openjdk ")) << runtime->name();
  ASSERT_TRUE(runtime->cover(*modules));
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  ASSERT_TRUE(runtime->cover(*modules));
  const std::chrono::duration<double, std::milli> again_ms = Clock::now() - start;

  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {  // anything may be in the slots of a frame that is none
    const Module& module = modules->all()[random() % modules->all().size()];
    lt_v8_frame slot{};
    slot.shared = i % 4 == 0 ? random() : module.start + random() % (module.end - module.start);
    if (i % 4 > 1) slot.shared &= ~uint64_t{7};
    slot.bytecodes = slot.shared + random() % 4096;
    for (const auto& frame : runtime->name_frames({{}, {&slot, 1}, false, 0, 0})) {
      EXPECT_GE(frame.frame->line, 0);
    }
    (void)runtime->name_code(slot.shared);
    (void)runtime->read_slots({0, slot.shared, random(), slot.shared});
  }

  ASSERT_EQ(ptrace(PTRACE_SEIZE, worker, nullptr, nullptr), 0);
  const size_t wanted = stacks_wanted();
  bool again = false;
  size_t whole = 0, frames = 0, with_main = 0, cut = 0, left_out = 0;
  std::map<std::string, size_t> seen;
  for (size_t taken = 0; taken < wanted; ++taken) {
    usleep(random() % 500);
    // As a trace does: what was compiled since is learned of when a stack is cut.
    if (again) runtime->cover(*modules);
    user_regs_struct r{};
    ASSERT_TRUE(stop(worker, r));
    UnwindRegisters registers{r.rip,
                              r.rsp,
                              r.rbp,
                              {r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10,
                               r.r11, r.r12, r.r13, r.r14, r.r15},
                              static_cast<uint16_t>(static_cast<int64_t>(r.orig_rax) < 0 ? 0xffff : 0xf7fc)};
    const UnwoundStack stack = unwind(*modules, registers, memory_reader(jvm.pid()));
    std::vector<lt_v8_frame> slots;
    for (const auto& pointers : stack.uncovered) {
      if (const auto slot = runtime->read_slots(pointers)) slots.push_back(*slot);
    }
    const auto names =
        runtime->name_frames({stack.addresses, slots, static_cast<int64_t>(r.orig_rax) < 0, r.r9, r.r15});
    std::string text;
    left_out += slots.size() - names.size();
    for (const auto& named : names) text += named.frame->function + " ";
    for (size_t i = 0; i < stack.addresses.size(); ++i) {
      const auto frame = runtime->name_code(stack.addresses[i] - (i > 0));
      if (!frame) continue;
      ++seen[frame->function];
      text += frame->function + " ";
    }
    ASSERT_EQ(ptrace(PTRACE_CONT, worker, nullptr, nullptr), 0);
    frames += stack.addresses.size();
    whole += stack.status == LT_UNWIND_END;
    again = stack.status != LT_UNWIND_END;
    with_main += text.find("JavaWork.") != std::string::npos;
    if (stack.status != LT_UNWIND_END && cut++ < 5)
      std::printf("  cut: status %u after %zu frames: %s\n", stack.status, stack.addresses.size(),
                  text.c_str());
  }
  std::printf(
      "java: %zu stacks of %.1f frames, %zu reached the start, %zu with a method of the program, %zu frames "
      "of "
      "the interpreter without a name; a look at the code anew %.1f ms\n",
      wanted, static_cast<double>(frames) / static_cast<double>(wanted), whole, with_main, left_out,
      again_ms.count());
  EXPECT_GE(static_cast<double>(whole), 0.995 * static_cast<double>(wanted));
  EXPECT_GE(static_cast<double>(with_main), 0.99 * static_cast<double>(wanted));
  EXPECT_TRUE(seen.contains("JavaWork.fib")) << "compiled";
}

}  // namespace
}  // namespace looptrace
