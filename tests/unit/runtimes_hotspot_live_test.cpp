// SPDX-License-Identifier: Apache-2.0
// Real JVMs: their busy thread is stopped at random moments by ptrace. Walks must reach the thread's start,
// through interpreted and compiled code, and name the methods and lines as the JVM itself does.
//
// LOOPTRACE_ORACLE_STACKS sets how many stacks are taken.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../javas.h"
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

// JavaWork's class file: a JVM without a compiler runs it too.
const std::string& classes() {
  static const std::string directory = [] {
    std::string made = fs::temp_directory_path() / "looptrace-java-XXXXXX";
    if (!mkdtemp(made.data())) return std::string();
    const std::string source = std::string(TEST_DATA_DIR) + "/../victims/JavaWork.java";
    const int code =
        std::system(("javac -nowarn -g --release 8 -d " + made + " " + source + " 2>&1").c_str());
    return code == 0 ? made : std::string();
  }();
  return directory;
}

class Jvm {
 public:
  Jvm(const std::string& java, std::vector<std::string> options) {
    int to_it[2], from_it[2];
    if (pipe2(to_it, O_CLOEXEC) != 0 || pipe2(from_it, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(to_it[0], 0);
      dup2(from_it[1], 1);
      std::vector<std::string> command = {java};
      command.insert(command.end(), options.begin(), options.end());
      command.insert(command.end(), {"-cp", classes(), "JavaWork"});
      std::vector<char*> args;
      for (std::string& word : command) args.push_back(word.data());
      args.push_back(nullptr);
      execvp(java.c_str(), args.data());
      _exit(127);
    }
    ask_ = fdopen(to_it[1], "w");
    answers_ = from_it[0];
    close(to_it[0]);
    close(from_it[1]);
    std::vector<std::string> ready;
    read_lines(ready, "ready");
  }
  ~Jvm() {
    kill(pid_, SIGKILL);
    while (waitpid(-1, nullptr, __WALL) > 0) {
    }  // a traced thread must be waited for before its process
    fclose(ask_);
    close(answers_);
  }
  Jvm(const Jvm&) = delete;
  Jvm& operator=(const Jvm&) = delete;

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

  // Where it says that its thread is: "class.method file line", innermost first. Nothing if it does not
  // answer: then the answer comes when the thread goes on.
  std::optional<std::vector<std::string>> account() {
    if (std::exchange(owes_, false)) {
      std::vector<std::string> late;
      owes_ = !read_lines(late, "");
      if (owes_) return std::nullopt;
    }
    fputs("\n", ask_);
    fflush(ask_);
    std::vector<std::string> lines;
    if (read_lines(lines, "")) return lines;
    owes_ = true;
    return std::nullopt;
  }

 private:
  bool read_lines(std::vector<std::string>& lines, const std::string& last) {
    for (;;) {
      for (size_t end; (end = text_.find('\n')) != std::string::npos;) {
        std::string line = text_.substr(0, end);
        text_.erase(0, end + 1);
        if (line == last) return true;
        lines.push_back(std::move(line));
      }
      pollfd ready{answers_, POLLIN, 0};
      char bytes[4096];
      if (poll(&ready, 1, last.empty() ? 300 : 10'000) <= 0) return false;
      const ssize_t n = read(answers_, bytes, sizeof bytes);
      if (n <= 0) return false;
      text_.append(bytes, static_cast<size_t>(n));
    }
  }

  pid_t pid_ = -1;
  FILE* ask_ = nullptr;
  int answers_ = -1;
  std::string text_;
  bool owes_ = false;
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

UnwindRegisters unwind_registers(const user_regs_struct& r) {
  return {r.rip,
          r.rsp,
          r.rbp,
          {r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
           r.r14, r.r15},
          static_cast<uint16_t>(static_cast<int64_t>(r.orig_rax) < 0 ? 0xffff : 0xf7fc)};
}

// All of the thread's Java frames and the runtime's code among them, as a trace names them.
struct Named {
  UnwoundStack stack;
  std::vector<Frame> frames;
  size_t without_name = 0;
  double code_us = 0;  // that naming the compiled ones took
};

Named name_all(Runtime& runtime, const ProcessModules& modules, pid_t pid, const user_regs_struct& r) {
  using Clock = std::chrono::steady_clock;
  const bool interrupted = static_cast<int64_t>(r.orig_rax) < 0;
  Named named{unwind(modules, unwind_registers(r), memory_reader(pid)), {}};
  std::vector<lt_v8_frame> slots;
  for (const auto& pointers : named.stack.uncovered) {
    if (const auto slot = runtime.read_slots(pointers)) slots.push_back(*slot);
  }
  const auto interpreted = runtime.name_frames({named.stack.addresses, slots, interrupted, r.r9, r.r15});
  named.without_name = slots.size() - interpreted.size();
  size_t next = 0;
  for (size_t i = 0; i < named.stack.addresses.size(); ++i) {
    if (next < interpreted.size() && interpreted[next].user == i) {
      named.frames.push_back(*interpreted[next++].frame);
      continue;
    }
    const auto start = Clock::now();
    for (Frame& frame : runtime.name_code(named.stack.addresses[i], i > 0 || !interrupted))
      named.frames.push_back(std::move(frame));
    named.code_us += std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  }
  return named;
}

// Of what the runtime makes itself, getStackTrace() tells more in some versions than in others.
bool is_made_of_a_lambda(const std::string& line) {
  return line.find("$$Lambda") != std::string::npos || line.find("LambdaForm") != std::string::npos;
}

// As JavaWork writes it.
std::vector<std::string> account_of(const std::vector<Frame>& frames) {
  std::vector<std::string> lines;
  for (const Frame& f : frames) {
    if (f.file.empty() || is_made_of_a_lambda(f.function) || f.function == "java.lang.Thread.runWith")
      continue;
    lines.push_back(f.function + " " + f.file + " " + (f.line ? std::to_string(f.line) : "-2") +
                    (f.at_definition ? " at definition" : ""));
  }
  return lines;
}

class HotspotLive : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam().empty()) GTEST_SKIP() << "no java here (tests/provision runtimes)";
    if (classes().empty()) GTEST_SKIP() << "no javac here (tests/provision runtimes)";
  }
  static void TearDownTestSuite() { fs::remove_all(classes().empty() ? "/nonexistent" : classes()); }
};

TEST_P(HotspotLive, StacksReachTheThreadsStartAndNameTheMethods) {
  Jvm jvm(GetParam(), {});
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
    (void)runtime->name_code(slot.shared, i % 2);
    (void)runtime->read_slots({0, slot.shared, random(), slot.shared});
  }

  ASSERT_EQ(ptrace(PTRACE_SEIZE, worker, nullptr, nullptr), 0);
  const size_t wanted = stacks_wanted();
  bool again = false;
  size_t whole = 0, addresses = 0, with_main = 0, cut = 0, without_name = 0;
  size_t named = 0, calls = 0, calls_with_line = 0, asked = 0, same = 0, told = 0;
  double code_us = 0;
  std::map<std::string, size_t> seen;
  for (size_t taken = 0; taken < wanted; ++taken) {
    usleep(random() % 500);
    // As a trace does: what was compiled since is learned of when a stack is cut.
    if (again) runtime->cover(*modules);
    user_regs_struct r{};
    ASSERT_TRUE(stop(worker, r));
    const Named found = name_all(*runtime, *modules, jvm.pid(), r);
    std::string text;
    for (const Frame& frame : found.frames) {
      ++seen[frame.function];
      text += frame.function + " ";
      if (frame.function == "JavaWork.fib") {
        EXPECT_EQ(frame.line, 15) << frame.at_definition;
      }
      const bool leaf = &frame == &found.frames.front();
      named += !frame.file.empty();
      calls += !frame.file.empty() && !leaf;
      calls_with_line += !frame.file.empty() && !leaf && frame.line && !frame.at_definition;
    }
    // A thread that sleeps can be asked about while it is stopped.
    const bool sleeps = static_cast<int64_t>(r.orig_rax) >= 0 && text.starts_with("java.lang.Thread.sleep");
    if (sleeps && found.stack.status == LT_UNWIND_END && told < 400) {
      ++asked;
      if (auto account = jvm.account()) {
        std::erase_if(*account, is_made_of_a_lambda);
        ++told;
        const auto lines = account_of(found.frames);
        same += lines == *account;
        if (lines != *account && told - same <= 3) {
          std::string both = "ours:\n";
          for (const auto& line : lines) both += "  " + line + "\n";
          both += "its own:\n";
          for (const auto& line : *account) both += "  " + line + "\n";
          std::printf("%s", both.c_str());
        }
      }
    }
    ASSERT_EQ(ptrace(PTRACE_CONT, worker, nullptr, nullptr), 0);
    addresses += found.stack.addresses.size();
    without_name += found.without_name;
    code_us += found.code_us;
    whole += found.stack.status == LT_UNWIND_END;
    again = found.stack.status != LT_UNWIND_END;
    with_main += text.find("JavaWork.") != std::string::npos;
    if (found.stack.status != LT_UNWIND_END && cut++ < 5)
      std::printf("  cut: status %u after %zu frames: %s\n", found.stack.status, found.stack.addresses.size(),
                  text.c_str());
  }
  std::printf(
      "%s: %zu stacks of %.1f frames, %zu reached the start, %zu with a method of the program, %zu frames of "
      "the "
      "interpreter without a name; of %zu calls %zu with their line; %zu of %zu sleeping stacks as it tells "
      "them "
      "itself (%zu asked); a look at the code anew %.1f ms, a frame named in %.0f us\n",
      runtime->name().c_str(), wanted, static_cast<double>(addresses) / static_cast<double>(wanted), whole,
      with_main, without_name, calls, calls_with_line, same, told, asked, again_ms.count(),
      code_us / static_cast<double>(addresses));
  EXPECT_GE(static_cast<double>(whole), 0.995 * static_cast<double>(wanted));
  EXPECT_GE(static_cast<double>(with_main), 0.99 * static_cast<double>(wanted));
  EXPECT_TRUE(seen.contains("JavaWork.fib")) << "compiled";
  EXPECT_GT(told, 0u);
  EXPECT_EQ(same, told);
}

TEST(Hotspot, VersionsAndTablesThatAreNotKnownAreRefused) {
  void* const library = dlopen(FAKE_LIBJVM, RTLD_NOW);
  ASSERT_TRUE(library) << dlerror();
  auto* const release = static_cast<const char**>(dlsym(library, "fake_release"));
  ASSERT_TRUE(release);
  const auto warning_of = [&](const char* version) {
    *release = version;
    ObjectCache cache;
    std::optional<std::string> warning;
    const auto modules = ProcessModules::load(getpid(), cache);
    EXPECT_FALSE(modules && detect_runtime(getpid(), *modules, warning)) << version;
    return warning.value_or("");
  };
  EXPECT_NE(warning_of("17.0.15+6-Debian-1deb12u1").find("OpenJDK 17.0.15+6: its code cache"),
            std::string::npos);
  EXPECT_NE(warning_of("28+7").find("OpenJDK 28+7 is not known"), std::string::npos);
  EXPECT_NE(warning_of("").find("is not known"), std::string::npos);
  dlclose(library);
}

std::string java_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.empty() ? "none" : info.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Jvms, HotspotLive, testing::ValuesIn([] {
                           auto found = test::javas();
                           if (found.empty()) found.emplace_back();
                           return found;
                         }()),
                         java_name);

}  // namespace
}  // namespace looptrace
