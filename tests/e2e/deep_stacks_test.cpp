// SPDX-License-Identifier: Apache-2.0
// Stacks of more interpreter frames than a capture holds, and of fewer native ones: cut, said to be, and
// counted.
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "harness.h"

namespace looptrace::test {
namespace {

const char* const kPython = R"program(
import asyncio, json, os, sys, time
def deep(n, work): return deep(n - 1, work) if n else work()
def nap(): time.sleep(0.12)
def spin():
    end = time.monotonic() + 0.12
    while time.monotonic() < end: pass
async def main():
    print("ready", os.getpid(), flush=True)
    while not os.path.exists(sys.argv[1]): await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    for work in nap, spin:
        start = time.monotonic_ns()
        deep(220, work)
        print(json.dumps({"kind": work.__name__, "start_ns": start, "end_ns": time.monotonic_ns()}))
        await asyncio.sleep(0.3)
asyncio.run(main())
)program";

const char* const kNode = R"program(
const cell = new Int32Array(new SharedArrayBuffer(4));
function deep(n, work) {
  return n ? deep(n - 1, work) + 1 : work();
}
function nap() { Atomics.wait(cell, 0, 0, 120); return 0; }
function spin() { for (const end = Date.now() + 120; Date.now() < end;); return 0; }
const works = [nap, spin];
function wait() { setTimeout(...require('fs').existsSync(process.argv[2]) ? [turn, 500] : [wait, 50]); }
function turn() {
  const work = works.shift();
  if (!work) return;
  const start = process.hrtime.bigint();
  deep(220, work);
  console.log(JSON.stringify({kind: work.name, start_ns: Number(start), end_ns: Number(process.hrtime.bigint())}));
  setTimeout(turn, 300);
}
console.log('ready', process.pid);
wait();
)program";

const char* const kJava = R"program(
import java.nio.channels.Selector;

public class Deep {
  static int deep(int n, boolean nap) throws Exception {
    return n > 0 ? deep(n - 1, nap) + 1 : nap ? nap() : spin();
  }
  static int nap() throws Exception { Thread.sleep(120); return 0; }
  static int spin() {
    for (long end = System.nanoTime() + 120_000_000; System.nanoTime() < end;);
    return 0;
  }
  public static void main(String[] args) throws Exception {
    Selector selector = Selector.open();
    System.out.println("ready " + ProcessHandle.current().pid());
    while (!new java.io.File(args[0]).exists()) selector.select(50);
    for (int i = 0; i < 10; i++) selector.select(50);
    for (boolean nap : new boolean[] {true, false}) {
      long start = System.nanoTime();
      deep(220, nap);
      System.out.println("{\"kind\":\"" + (nap ? "nap" : "spin") + "\",\"start_ns\":" + start + ",\"end_ns\":" + System.nanoTime() + "}");
      for (int i = 0; i < 6; i++) selector.select(50);
    }
  }
}
)program";

struct Deep {
  const char* name;
  const char* needs;
  const char* source;
  const char* file;
  std::vector<std::string> command;
  const char* function;
  size_t most;  // frames of the interpreter in a capture
};

class DeepStacks : public testing::TestWithParam<Deep> {};

TEST_P(DeepStacks, SayThatTheyAreCut) {
  LOOPTRACE_NEEDS_ROOT();
  const Deep& deep = GetParam();
  if (std::system((std::string(deep.needs) + " >/dev/null 2>&1").c_str()) != 0)
    GTEST_SKIP() << deep.needs << " fails: tests/provision runtimes e2e";
  const Directory directory;
  const std::string file = directory.path() + "/" + deep.file, begin = directory.path() + "/begin";
  std::ofstream(file) << deep.source;
  auto command = deep.command;
  command.insert(command.end(), {file, begin});
  Victim victim(command, {});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms", "--max-line", "400000"});
  ASSERT_TRUE(trace.started());
  std::ofstream(begin) << "";
  EXPECT_EQ(victim.truth().size(), 2u) << victim.process().errors();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const auto stalls = trace.stalls();
  std::set<std::string> states;
  size_t cut = 0;
  for (const json& s : stalls) {
    for (const json& stack : s.value("stacks", json::array())) {
      const auto seen = std::count_if(stack["frames"].begin(), stack["frames"].end(), [&](const json& f) {
        return f.value("function", "") == deep.function;
      });
      if (seen < 100) continue;  // of the way down, or of the runtime's own work
      ++cut;
      states.insert(stack["state"]);
      EXPECT_LE(static_cast<size_t>(seen), deep.most);
      EXPECT_TRUE(stack.value("incomplete", false)) << stack.dump().substr(0, 2000);
    }
  }
  EXPECT_EQ(states, (std::set<std::string>{"blocked", "on_cpu"})) << stalls.size() << " stalls";
  uint64_t counted = 0;
  for (const json& loop : trace.records("looptrace.loop/1")) {
    const json stacks = loop.value("stacks", json::object());
    counted += stacks.value("incomplete", json::object()).value("interpreter_too_deep", 0u);
  }
  EXPECT_GE(counted, cut);
}

INSTANTIATE_TEST_SUITE_P(
    Runtimes, DeepStacks,
    testing::Values(
        Deep{"CPython", "python3 -V", kPython, "deep.py", {"/usr/bin/python3"}, "deep", 192},
        Deep{"Node", "node --version", kNode, "deep.js", {"/usr/bin/env", "node", "--no-opt"}, "deep", 160},
        Deep{"Java",
             "javac -version",
             kJava,
             "Deep.java",
             {"/usr/bin/env", "java", "-Xint"},
             "Deep.deep",
             160}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace looptrace::test
