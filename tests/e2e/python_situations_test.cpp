// SPDX-License-Identifier: Apache-2.0
// CPythons that are not as others: memory that is taken away, a version that nobody knows.
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include "harness.h"

namespace looptrace::test {
namespace {

// A stack of Python frames that fills several of the interpreter's chunks of 16 KiB, above one that sleeps or
// spins.
const char* const kDeep = R"program(
import asyncio, json, os, time
exec("def deep(n, work):\n " + " = ".join("v%d" % i for i in range(60)) + " = n\n return deep(n - 1, work) if n else work()")
def nap(): time.sleep(0.2)
def spin():
    end = time.monotonic() + 0.2
    while time.monotonic() < end: pass
async def main():
    print("ready", os.getpid(), flush=True)
    await asyncio.sleep(1.5)
    for work in (nap, spin) * 3:
        truth = {"kind": work.__name__, "start_ns": time.monotonic_ns()}
        deep(100, work)
        truth["end_ns"] = time.monotonic_ns()
        print(json.dumps(truth))
        await asyncio.sleep(0.3)
asyncio.run(main())
)program";

struct Range {
  uint64_t start, end;
};

std::vector<Range> file_memory(pid_t pid) {
  std::vector<Range> found;
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    Range r{};
    if (line.find("/file-memory-") != line.npos &&
        std::sscanf(line.c_str(), "%lx-%lx", &r.start, &r.end) == 2) {
      found.push_back(r);
    }
  }
  return found;
}

void take_away(int pidfd, const std::vector<Range>& ranges) {
  for (const Range& r : ranges) {
    iovec part{reinterpret_cast<void*>(r.start), r.end - r.start};
    constexpr int kPageOut = 21;  // MADV_PAGEOUT
    syscall(SYS_process_madvise, pidfd, &part, 1, kPageOut, 0);
  }
}

struct Completeness {
  size_t python = 0, deep = 0;
  bool whole = false;
};

// By what the program can have on its stack. With memory taken away everything is slow, so that samples fall
// between the calls, too: then there is nothing of deep(), or it is the innermost. A walk that leaves out
// inner frames has native frames of the eval loop left over.
Completeness completeness_of(const json& stack) {
  Completeness seen;
  std::string innermost, outermost;
  bool eval_left = false;
  for (const json& f : stack["frames"]) {
    const std::string function = f.value("function", "");
    eval_left = eval_left || function.starts_with("_PyEval_EvalFrameDefault");
    if (f.value("kind", "") != "python") continue;
    if (!seen.python++) innermost = function;
    outermost = function;
    seen.deep += function == "deep";
  }
  const bool all_deep = seen.deep == 101 || innermost == "deep" ||
                        (seen.deep == 0 && innermost != "nap" && innermost != "spin");
  seen.whole = seen.python && outermost == "<module>" && all_deep && !eval_left;
  return seen;
}

// A stack that needs memory that is not there is read from outside while the thread is blocked; one of a
// thread that runs is as long as could be read, says that it is cut, and is counted.
TEST(PythonSituations, MemoryThatIsTakenAway) {
  LOOPTRACE_NEEDS_ROOT();
  const Directory directory;
  Victim victim({"/usr/bin/env", "LD_PRELOAD=" FILE_MEMORY_LIBRARY,
                 "FILE_MEMORY_DIRECTORY=" + directory.path(), "/usr/bin/python3", "-c", kDeep},
                {});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms", "--sample-hz", "200",
               "--max-line", "200000"});
  ASSERT_TRUE(trace.started());
  const auto ranges = file_memory(victim.pid());
  ASSERT_FALSE(ranges.empty());
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, victim.pid(), 0));
  ASSERT_GE(pidfd, 0);
  for (const uint64_t end = monotonic_ns() + 8'000'000'000;
       !victim.process().ended() && monotonic_ns() < end;) {
    take_away(pidfd, file_memory(victim.pid()));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  close(pidfd);
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  ASSERT_EQ(truth.size(), 6u);
  size_t blocked = 0, whole = 0, cut = 0;
  for (const json& s : trace.stalls()) {
    for (const json& stack : s["stacks"]) {
      const Completeness seen = completeness_of(stack);
      if (!seen.python || stack["weight_ns"].get<uint64_t>() < 4'000'000) continue;
      (seen.whole ? whole : cut) += 1;
      EXPECT_TRUE(seen.whole || stack.value("incomplete", false)) << stack.dump();
      if (stack["state"] == "blocked" && stack["weight_ns"].get<uint64_t>() > 100'000'000) {
        ++blocked;
        EXPECT_TRUE(seen.whole && seen.deep == 101) << stack.dump();
      }
    }
  }
  EXPECT_GE(blocked, 1u) << "of 3; waits for memory may have used up a stall's captures";
  uint64_t counted = 0;
  for (const json& loop : trace.records("looptrace.loop/1")) {
    const json stacks = loop.value("stacks", json::object());
    counted += stacks.value("incomplete", json::object()).value("interpreter_fault", 0u);
  }
  std::printf("  %zu stacks whole, %zu cut and marked, %llu counted as interpreter_fault\n", whole, cut,
              static_cast<unsigned long long>(counted));
  EXPECT_TRUE(cut == 0 || counted > 0);
}

// greenlet copies each greenlet's stack in and out of the same place: the stack ends where the greenlet
// began, whatever was left below.
TEST(PythonSituations, AGreenletsStackEndsWhereItBegan) {
  LOOPTRACE_NEEDS_ROOT();
  if (run({"/usr/bin/python3", "-c", "import gevent"}).code != 0)
    GTEST_SKIP() << "no gevent; tests/provision e2e installs it";
  Victim victim({"/usr/bin/python3", std::string(SOURCE_DIR) + "/tests/victims/py_greenlets.py"}, {});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "20ms", "--max-line", "200000"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  ASSERT_EQ(truth.size(), 9u) << victim.process().errors();
  const auto stalls = trace.stalls();
  size_t stacks = 0;
  for (const json& t : truth) {
    const json* s = overlapping(t, stalls);
    ASSERT_TRUE(s) << "missed: " << t.dump();
    for (const json& stack : s->value("stacks", json::array())) {
      json python = json::array();
      bool beyond = false;
      for (const json& f : stack["frames"]) {
        if (f["kind"] == "python") python.push_back({f.value("function", ""), f.value("line", 0)});
        beyond = beyond || f.value("guessed", false) || f.value("function", "") == "_start";
      }
      // Of the loop, before or after.
      const bool of_it =
          t["frames"].empty() ? python.empty() : python.size() > 1 && python[0] == t["frames"][0];
      if (!of_it) continue;
      ++stacks;
      EXPECT_EQ(python, t["frames"]);
      EXPECT_FALSE(stack.value("incomplete", false)) << stack.dump();
      EXPECT_FALSE(beyond) << stack.dump();
      EXPECT_TRUE(stack["frames"].back().value("module", "").starts_with("_greenlet.")) << stack.dump();
    }
  }
  EXPECT_GE(stacks, truth.size());
}

// The interpreter of this machine, made to say that it is 3.16.
TEST(PythonSituations, AVersionThatIsNotKnownIsWarnedOfAndKeepsNativeFrames) {
  LOOPTRACE_NEEDS_ROOT();
  const Directory directory;
  const std::string python = directory.path() + "/python3";
  const Outcome made =
      run({"/usr/bin/python3", "-c",
           "import os, sys\n"
           "image = open(os.path.realpath(sys.executable), 'rb').read()\n"
           "own = sys.hexversion.to_bytes(4, 'little')\n"
           "assert own in image\n"
           "open(sys.argv[1], 'wb').write(image.replace(own, (0x031000f0).to_bytes(4, 'little')))\n"
           "os.chmod(sys.argv[1], 0o755)\n",
           python});
  ASSERT_EQ(made.code, 0) << made.errors;
  Victim victim({"/usr/bin/env", "PYTHONHOME=/usr", python, "-c", kDeep}, {});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  ASSERT_EQ(truth.size(), 6u);
  size_t warnings = 0;
  for (const json& w : trace.records("looptrace.warning/1")) {
    if (w["code"] != "runtime_unknown") continue;
    ++warnings;
    EXPECT_NE(w["message"].get<std::string>().find("CPython 3.16"), std::string::npos) << w.dump();
  }
  EXPECT_EQ(warnings, 1u);
  const auto stalls = trace.stalls();
  EXPECT_GE(stalls.size(), 5u);
  for (const json& s : stalls) {
    ASSERT_FALSE(s["stacks"].empty()) << s.dump();
    for (const json& f : s["stacks"][0]["frames"]) EXPECT_NE(f["kind"], "python") << s.dump();
    EXPECT_GT(s["stacks"][0]["frames"].size(), 3u) << s.dump();
  }
}

}  // namespace
}  // namespace looptrace::test
