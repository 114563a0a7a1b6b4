// SPDX-License-Identifier: Apache-2.0
// Native stacks that need more than rsp and rbp: each must reach the thread's start, or say that it does not.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "harness.h"

namespace looptrace::test {
namespace {

bool has_frame(const json& stack, const std::string& function) {
  return std::any_of(stack["frames"].begin(), stack["frames"].end(),
                     [&](const json& frame) { return frame.value("function", "") == function; });
}

/// The stalls of the victim, traced until its end.
void trace_to_the_end(Victim& victim, std::vector<json>& stalls) {
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  victim.process().wait();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  stalls = of_pid(trace.stalls(), victim.pid());
}

class RegisterStacks : public testing::TestWithParam<const char*> {};

TEST_P(RegisterStacks, ReachTheThreadsStart) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("leaf_registers", {"--flavour", GetParam(), "--count", "4", "--stall-ms", "150", "--gap-ms",
                                   "50", "--delay-ms", "1200"});
  std::vector<json> stalls;
  ASSERT_NO_FATAL_FAILURE(trace_to_the_end(victim, stalls));
  ASSERT_EQ(stalls.size(), 4u);
  size_t stacks = 0, spinning = 0;
  for (const json& stall : stalls) {
    for (const json& stack : stall["stacks"]) {
      ++stacks;
      EXPECT_FALSE(stack.contains("incomplete")) << stack.dump();
      for (const char* function : {"call_by_register", "run_epoll_loop", "main", "_start"})
        EXPECT_TRUE(has_frame(stack, function)) << function << " in " << stack.dump();
      for (const char* function : {"spin_r10", "spin_rax", "spin_call", "spin_index", "vfork", "__vfork"})
        spinning += has_frame(stack, function);
    }
  }
  EXPECT_GE(stacks, 4u);
  EXPECT_GE(spinning, 4u);
}

INSTANTIATE_TEST_SUITE_P(Native, RegisterStacks, testing::Values("r10", "call", "index", "signal", "vfork"),
                         [](const auto& info) { return std::string(info.param); });

class Musl : public testing::TestWithParam<const char*> {};

// musl's libc has no unwind tables, as Alpine has it: what its code does to the stack is found in the code
// itself.
TEST_P(Musl, StacksReachTheThreadsStart) {
  LOOPTRACE_NEEDS_ROOT();
  const Directory directory;
  const std::string program = directory.path() + "/victim", options = GetParam();
  const bool stripped = options == "-s";
  const Outcome compiled =
      run({"/usr/bin/env", "musl-gcc", "-O2", stripped ? "-static" : options, stripped ? "-s" : "-g0",
           std::string(SOURCE_DIR) + "/tests/victims/epoll_sleep.c", "-o", program});
  ASSERT_EQ(compiled.code, 0) << "tests/provision e2e installs musl-tools: " << compiled.errors;
  Victim victim({program, "--count", "2", "--stall-ms", "100", "--gap-ms", "50", "--delay-ms", "900"});
  std::vector<json> stalls;
  ASSERT_NO_FATAL_FAILURE(trace_to_the_end(victim, stalls));
  ASSERT_EQ(stalls.size(), 2u);
  for (const json& stall : stalls) {
    ASSERT_TRUE(stall.contains("stacks"));
    const json& stack = stall["stacks"][0];
    EXPECT_FALSE(stack.contains("incomplete")) << stack.dump();
    if (stripped) {
      EXPECT_GE(stack["frames"].size(), 9u) << stack.dump();
      continue;
    }
    for (const char* function : {"clock_nanosleep", "main", "_start"})
      EXPECT_TRUE(has_frame(stack, function)) << function << " in " << stack.dump();
  }
}

INSTANTIATE_TEST_SUITE_P(Native, Musl, testing::Values("-g0", "-static", "-s"), [](const auto& info) {
  return std::string(std::array{"dynamic", "static", "stripped"}[info.index]);
});

TEST(CheckTarget, WalksTheStacksOfBlockedThreads) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("many_loops", {"--threads", "5", "--count", "1", "--delay-ms", "20000"});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  usleep(200000);
  const Outcome o = run_looptrace({"check", "--json", "-p", std::to_string(victim.pid())});
  EXPECT_EQ(o.code, 0) << o.errors;
  const json features = json::parse(o.out, nullptr, false)["features"];
  const std::string pid = "pid " + std::to_string(victim.pid()) + " ";
  for (const char* name : {"process", "mappings", "unwind_rows", "files_without_cfi", "stacks"}) {
    ASSERT_TRUE(features.contains(pid + name)) << name << " in " << o.out;
    EXPECT_TRUE(features[pid + name]["available"].get<bool>()) << features[pid + name];
  }
  // Five loops and the thread that waits for them, all asleep but for what runs just then.
  const std::string stacks = features[pid + "stacks"]["detail"];
  size_t whole = 0, walked = 0;
  ASSERT_EQ(std::sscanf(stacks.c_str(), "%zu of %zu blocked threads walked", &whole, &walked), 2) << stacks;
  EXPECT_EQ(whole, walked) << stacks;
  EXPECT_GE(walked, 4u) << stacks;
}

TEST(CheckTarget, NoSuchProcess) {
  LOOPTRACE_NEEDS_ROOT();
  const Outcome o = run_looptrace({"check", "-p", "4194304"});  // above the largest pid_max
  EXPECT_EQ(o.code, 3) << o.out;
  EXPECT_NE(o.errors.find("4194304"), std::string::npos) << o.errors;
}

// Whether the main thread of a process is blocked in this system call.
bool is_in(pid_t pid, long call) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/syscall");
  long number = -1;
  return file >> number && number == call;
}

// What `check` tells of the stack of a program that was compiled with those options.
json checked_stack(const std::vector<std::string>& options) {
  const Directory directory;
  const std::string program = directory.path() + "/victim";
  std::vector<std::string> compile = {"/usr/bin/env", "cc"};
  compile.insert(compile.end(), options.begin(), options.end());
  compile.insert(compile.end(), {std::string(SOURCE_DIR) + "/tests/victims/epoll_sleep.c", "-o", program});
  const Outcome compiled = run(compile);
  EXPECT_EQ(compiled.code, 0) << compiled.errors;
  // Long asleep: beside others, what ticks may run just when it is looked at.
  Victim victim({program, "--count", "1", "--gap-ms", "1", "--stall-ms", "60000"});
  EXPECT_TRUE(victim.ready()) << victim.process().errors();
  EXPECT_TRUE(wait_until([&] { return is_in(victim.pid(), SYS_clock_nanosleep); }, 10));
  const Outcome o = run_looptrace({"check", "--json", "-p", std::to_string(victim.pid())});
  const json features = json::parse(o.out, nullptr, false)["features"];
  return features["pid " + std::to_string(victim.pid()) + " stacks"];
}

// A stripped program without tables: a trace has only the frame pointer to go by, which is none here.
TEST(CheckTarget, TellsOfStacksThatBreakOff) {
  LOOPTRACE_NEEDS_ROOT();
  const json stacks = checked_stack(
      {"-O2", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-s"});
  EXPECT_EQ(stacks["detail"], "0 of 1 blocked thread walked to the thread's start; 1 frame_without_tables");
  EXPECT_EQ(stacks["available"], false);
  EXPECT_NE(stacks.dump().find("did so at victim+0x"), std::string::npos) << stacks;
}

// With tables that want the frame pointer, which /proc does not tell: a trace has it.
TEST(CheckTarget, TellsOfStacksThatATraceWalks) {
  LOOPTRACE_NEEDS_ROOT();
  const json stacks = checked_stack({"-O0"});
  EXPECT_EQ(stacks["detail"],
            "0 of 1 blocked thread walked to the thread's start; 1 rbp_not_known_from_outside");
  EXPECT_EQ(stacks["available"], true);
}

// Listens, as a debuginfod would.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(fd_, reinterpret_cast<sockaddr*>(&address), size) || listen(fd_, 8) ||
        getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size))
      return;
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~Listener() { close(fd_); }
  const std::string& url() const { return url_; }
  bool was_asked() const {
    const int peer = accept(fd_, nullptr, nullptr);
    if (peer >= 0) close(peer);
    return peer >= 0;
  }

 private:
  int fd_;
  std::string url_;
};

// Deeper than a walk goes: cut, said to be and counted.
TEST(DeepStacks, SayThatTheyAreCut) {
  LOOPTRACE_NEEDS_ROOT();
  constexpr size_t kMostFrames = 384;  // LT_MAX_USER
  Victim victim("deep_stack", {"--depth", "1000", "--count", "2", "--stall-ms", "100", "--delay-ms", "1000"});
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms", "--max-line", "400000"});
  ASSERT_TRUE(trace.started());
  EXPECT_EQ(victim.truth().size(), 2u);
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const auto stalls = trace.stalls();
  ASSERT_EQ(stalls.size(), 2u);
  for (const json& stall : stalls) {
    size_t cut = 0;
    for (const json& stack : stall["stacks"]) {
      const auto native = std::count_if(stack["frames"].begin(), stack["frames"].end(),
                                        [](const json& f) { return f["kind"] == "native"; });
      EXPECT_LE(static_cast<size_t>(native), kMostFrames);
      EXPECT_TRUE(has_frame(stack, "descend"));
      // A sample can be of the way down or up.
      const bool deep = static_cast<size_t>(native) == kMostFrames;
      cut += deep;
      EXPECT_EQ(stack.value("incomplete", false), deep) << stack.dump().substr(0, 1000);
      EXPECT_NE(has_frame(stack, "main"), deep);
    }
    EXPECT_GE(cut, 1u);
  }
  size_t counted = 0;
  for (const json& loop : trace.records("looptrace.loop/1")) {
    if (loop["process"]["pid"] == victim.pid())
      counted += loop["stacks"]["incomplete"].value("too_deep", size_t{0});
  }
  EXPECT_GE(counted, 2u);
}

// A program without debuginfo, and a server that never answers; looptrace with `more` options finds both.
class Debuginfod : public testing::Test {
 protected:
  void SetUp() override {
    LOOPTRACE_NEEDS_ROOT();
    const std::string program = directory_.path() + "/stripped";
    const Outcome stripped = run({"/usr/bin/env", "strip", "-o", program, victim_path("epoll_sleep")});
    ASSERT_EQ(stripped.code, 0) << stripped.errors;
    ASSERT_FALSE(listener_.url().empty());
    setenv("DEBUGINFOD_URLS", listener_.url().c_str(), 1);
    setenv("DEBUGINFOD_CACHE_PATH", directory_.path().c_str(), 1);
    setenv("DEBUGINFOD_TIMEOUT", std::to_string(kPatience).c_str(), 1);
    victim_.emplace(std::vector<std::string>{program, "--count", "1", "--delay-ms", "20000"},
                    ProcessOptions());
    ASSERT_TRUE(victim_->ready()) << victim_->process().errors();
  }
  void TearDown() override {
    for (const char* name : {"DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "DEBUGINFOD_TIMEOUT"})
      unsetenv(name);
  }
  std::vector<std::string> options(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"--pid", std::to_string(victim_->pid()), "--threshold", "50ms"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  bool is_asked() const {
    bool asked = false;
    for (int i = 0; i < 100 && !(asked = listener_.was_asked()); ++i) usleep(20'000);
    return asked;
  }

  static constexpr uint64_t kPatience = 4;  // seconds, of which attaching takes less than one
  const Directory directory_;
  const Listener listener_;
  std::optional<Victim> victim_;
};

// One that is asked and does not answer keeps nobody from being traced meanwhile.
TEST_F(Debuginfod, AServerThatHangsDoesNotHoldUpTheStart) {
  const uint64_t before = monotonic_ns();
  Trace trace(options({"--debuginfod"}));
  if (!trace.started()) GTEST_SKIP() << trace.process().errors();
  EXPECT_LT(monotonic_ns() - before, kPatience * 1'000'000'000);
  EXPECT_TRUE(is_asked());
}

TEST_F(Debuginfod, NoServerIsAskedUnlessTold) {
  Trace trace(options());
  ASSERT_TRUE(trace.started());
  victim_->begin();
  EXPECT_TRUE(trace.wait_stall("closed", 10)) << "its frames have been named";
  EXPECT_FALSE(is_asked());
}

// A swap file while it lives, where this machine allows one.
class Swap {
 public:
  Swap() {
    constexpr uint32_t kPages = 8192;
    std::string file(size_t{kPages} * 4096, '\0');
    const uint32_t header[] = {1, kPages - 1, 0};  // version, last page, bad pages (linux/swap.h)
    std::memcpy(&file[1024], header, sizeof header);
    std::memcpy(&file[4096 - 10], "SWAPSPACE2", 10);
    std::ofstream(path_, std::ios::binary) << file;
    chmod(path_.c_str(), 0600);
    on_ = swapon(path_.c_str(), 0) == 0;
    if (!on_) why_ = std::strerror(errno);
  }
  ~Swap() {
    if (on_) swapoff(path_.c_str());
    unlink(path_.c_str());
  }
  bool on() const { return on_; }
  const std::string& why() const { return why_; }

 private:
  std::string path_ = "/var/tmp/looptrace-test-swap." + std::to_string(getpid());
  std::string why_;
  bool on_ = false;
};

// Pages of [low, high) that are in memory, by /proc/PID/pagemap (bit 63).
size_t resident_pages(pid_t pid, uint64_t low, uint64_t high) {
  FILE* file = fopen(("/proc/" + std::to_string(pid) + "/pagemap").c_str(), "r");
  if (!file) return 0;
  size_t n = 0;
  for (uint64_t page = low / 4096; page < high / 4096; ++page) {
    uint64_t entry = 0;
    if (fseek(file, static_cast<long>(page * 8), SEEK_SET) == 0 && fread(&entry, 8, 1, file) == 1)
      n += entry >> 63;
  }
  fclose(file);
  return n;
}

// The outer frames' pages are taken away under a running loop. A stack that needs them is whole (read in from
// outside, while the thread is blocked) or says that it is not, and is counted.
void expect_whole_or_marked(const std::string& flavour) {
  Victim victim("swapped_stack", {"--flavour", flavour, "--count", "3", "--stall-ms", "200", "--gap-ms",
                                  "400", "--delay-ms", "1200"});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  const auto line = victim.process().wait_line("{\"stack_low\"");
  ASSERT_TRUE(line);
  const json range = json::parse(*line);
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());

  // From above the loop's own frames to the top.
  const uint64_t low = (range["loop_sp"].get<uint64_t>() + 16384) & ~uint64_t{4095};
  const uint64_t high = range["stack_high"].get<uint64_t>() - 8192;  // the thread's own block lies at the top
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, victim.pid(), 0));
  ASSERT_GE(pidfd, 0);
  size_t least = SIZE_MAX;
  const uint64_t end = monotonic_ns() + 8'000'000'000;
  while (!victim.process().ended() && monotonic_ns() < end) {
    iovec part{reinterpret_cast<void*>(low), high - low};
    constexpr int kPageOut = 21;  // MADV_PAGEOUT
    if (syscall(SYS_process_madvise, pidfd, &part, 1, kPageOut, 0) < 0 && errno != ESRCH) {
      ADD_FAILURE() << "process_madvise: " << std::strerror(errno);
      break;
    }
    if (const size_t n = resident_pages(victim.pid(), low, high))
      least = std::min(least, n);
    else
      least = 0;
    usleep(20000);
  }
  close(pidfd);
  EXPECT_LT(least, (high - low) / 4096 / 2) << "the pages did not go";
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  ASSERT_EQ(stalls.size(), 3u);
  size_t whole = 0, marked = 0;
  for (const json& stall : stalls) {
    for (const json& stack : stall["stacks"]) {
      EXPECT_TRUE(has_frame(stack, "sleep_at_the_bottom")) << stack.dump();
      if (stack.contains("incomplete")) {
        ++marked;
      } else {
        ++whole;
        EXPECT_TRUE(has_frame(stack, "descend")) << stack.dump();
        EXPECT_TRUE(has_frame(stack, "run")) << stack.dump();
      }
    }
  }
  if (flavour == "file-cpu") {
    EXPECT_GE(marked, 3u) << "nobody reads pages in for a thread that runs";
  } else {
    EXPECT_GE(whole, 3u) << "a thread blocked for 200 ms is walked from outside";
    EXPECT_EQ(marked, 0u);
  }
  const auto summary = trace.summary();
  ASSERT_TRUE(summary);
  const json& counts = (*summary)["stacks"];
  EXPECT_GE(counts["taken"].get<size_t>(), whole + marked);
  if (marked) {
    EXPECT_GE(counts["incomplete"]["read_fault"].get<size_t>(), marked) << counts;
  }
  std::printf("%s: %zu stacks whole, %zu marked; summary %s\n", flavour.c_str(), whole, marked,
              counts.dump().c_str());
}

TEST(SwappedOut, StackOfABlockedThreadIsReadIn) {
  LOOPTRACE_NEEDS_ROOT();
  expect_whole_or_marked("file");
}

TEST(SwappedOut, StackOfAThreadThatRunsIsMarked) {
  LOOPTRACE_NEEDS_ROOT();
  expect_whole_or_marked("file-cpu");
}

TEST(SwappedOut, StackInSwapIsReadIn) {
  LOOPTRACE_NEEDS_ROOT();
  const Swap swap;
  if (!swap.on()) {
    std::printf("no swap here (%s): the stack of a file's pages stands for it\n", swap.why().c_str());
    return;
  }
  expect_whole_or_marked("anonymous");
}

}  // namespace
}  // namespace looptrace::test
