// SPDX-License-Identifier: Apache-2.0
// JavaScript frames as the BPF programs take them, against the victim's own account of the lines that it ran:
// every version of Node.js that is here, on a CPU and blocked, in all that V8 makes of a function.
#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "../pythons.h"
#include "harness.h"

namespace looptrace::test {
namespace {

const std::string& victim_file() {
  static const std::string file = std::string(SOURCE_DIR) + "/tests/victims/js_lines.js";
  return file;
}

/// The stack's frames of the victim's own file, as many as the truth has.
std::vector<json> own_frames(const json& truth, const json& stack) {
  std::vector<json> own;
  for (const json& f : stack["frames"]) {
    if (f.value("kind", "") == "javascript" && f.value("file", "") == victim_file()) own.push_back(f);
    if (own.size() == truth["frames"].size()) break;
  }
  return own;
}

bool at_line(const json& frame, const json& wanted) {
  return frame.value("function", "") == wanted[0] && frame.value("line", 0) == wanted[1] &&
         !frame.value("at_definition", false);
}

struct Score {
  uint64_t samples = 0, leaves = 0, exact = 0, stacks = 0, around = 0;
  std::string first_wrong;

  void add(const json& truth, const json& stack) {
    const auto own = own_frames(truth, stack);
    const json& wanted = truth["frames"];
    const uint64_t n = stack.value("samples", 1);
    // Before the stalling call and behind it, its caller takes the time.
    if (!own.empty() && own[0].value("function", "") == wanted.back()[0]) {
      around += n;
      return;
    }
    const bool exact = !own.empty() && at_line(own[0], wanted[0]);
    // While optimized code runs, only the function is known.
    const bool defined = !own.empty() && own[0].value("function", "") == wanted[0][0] &&
                         own[0].value("at_definition", false) && own[0].value("line", 0) == wanted[0][2];
    bool whole = own.size() == wanted.size();
    for (size_t i = 0; whole && i < own.size(); ++i)
      whole = at_line(own[i], wanted[i]) || (i == 0 && defined);
    samples += n;
    this->exact += exact ? n : 0;
    leaves += exact || defined ? n : 0;
    stacks += whole ? n : 0;
    if (!whole && first_wrong.empty()) first_wrong = truth.dump() + "\nbut " + stack.dump();
  }
};

void print(const std::string& what, const char* state, const Score& score) {
  const auto percent = [&](uint64_t n) {
    return 100.0 * static_cast<double>(n) / static_cast<double>(score.samples);
  };
  std::printf(
      "  %-14s %-8s %5llu samples, leaf right in %.2f %% (its line in %.2f %%), whole stack in %.2f %%\n",
      what.c_str(), state, static_cast<unsigned long long>(score.samples), percent(score.leaves),
      percent(score.exact), percent(score.stacks));
}

std::string node(const std::string& major) {
  const std::string program = cache_directory() + "/node-" + major + "/bin/node";
  return access(program.c_str(), X_OK) == 0 ? program : "";
}

class Node : public testing::TestWithParam<const char*> {};

TEST_P(Node, LinesAreThoseThatRan) {
  LOOPTRACE_NEEDS_ROOT();
  const std::string program = node(GetParam());
  if (program.empty()) GTEST_SKIP() << "no Node.js " << GetParam() << " here (tests/provision runtimes)";
  Victim victim({program, "--expose-gc", victim_file()}, {});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "20ms", "--sample-hz", "997",
               "--max-line", "400000"});
  ASSERT_TRUE(trace.started());
  victim.process().signal(SIGUSR1);
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  EXPECT_EQ(truth.size(), 36u) << victim.process().errors();
  const auto stalls = trace.stalls();
  Score on_cpu, blocked;
  for (const json& t : truth) {
    const json* s = overlapping(t, stalls);
    ASSERT_TRUE(s) << "missed: " << t.dump();
    EXPECT_EQ((*s)["process"].value("runtime", "").substr(0, 8), std::string("node ") + GetParam() + ".");
    // That the machine was busy with other things is true, too.
    const bool preempted = (*s)["cause"]["kind"] == "runqueue";
    EXPECT_TRUE(preempted || (t["kind"] == "gc") == ((*s)["cause"]["kind"] == "gc")) << s->dump();
    // What the collector waits for is its helpers, each time on another futex and with a stack of its own.
    for (const json& w : s->value("waits", json::array())) {
      EXPECT_FALSE(t["kind"] == "gc" && w["cause"] == "lock") << s->dump();
    }
    Score& score = t["kind"] == "blocked" ? blocked : on_cpu;
    const uint64_t before = score.samples;
    for (const json& stack : (*s)["stacks"]) {
      if (stack["state"] != (t["kind"] == "blocked" ? "blocked" : "on_cpu")) continue;
      // A stall that is blocked has short waits besides.
      if (t["kind"] == "blocked" && stack["weight_ns"].get<uint64_t>() * 2 < (*s)["duration_ns"]) continue;
      score.add(t, stack);
    }
    EXPECT_TRUE(preempted || score.samples > before) << "no stack: " << s->dump();
    if (t["kind"] == "blocked" && !preempted) {
      EXPECT_TRUE(at_line((*s)["culprit"], t["frames"][0])) << s->dump();
    }
  }
  ASSERT_GT(on_cpu.samples, 0u);
  ASSERT_GT(blocked.samples, 0u);
  const std::string runtime = stalls[0]["process"].value("runtime", "?");
  print(runtime, "on CPU", on_cpu);
  print(runtime, "blocked", blocked);
  EXPECT_GE(static_cast<double>(on_cpu.leaves), 0.99 * static_cast<double>(on_cpu.samples))
      << on_cpu.first_wrong;
  EXPECT_GE(static_cast<double>(on_cpu.stacks), 0.99 * static_cast<double>(on_cpu.samples))
      << on_cpu.first_wrong;
  EXPECT_GE(static_cast<double>(on_cpu.exact), 0.8 * static_cast<double>(on_cpu.samples))
      << on_cpu.first_wrong;
  EXPECT_LE(on_cpu.around * 20, on_cpu.samples);
  EXPECT_EQ(blocked.exact, blocked.samples) << blocked.first_wrong;
  EXPECT_EQ(blocked.stacks, blocked.samples) << blocked.first_wrong;
}

/// The program under another name, as an application is called that was built into a copy of it.
class Renamed {
 public:
  explicit Renamed(const std::string& program) : path_(program + "-shop." + std::to_string(getpid())) {
    if (link(program.c_str(), path_.c_str()) != 0) path_.clear();
  }
  ~Renamed() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// The JavaScript frames of a stack, as the victim writes them: [FUNCTION, FILE, LINE].
json places(const json& stack, size_t most) {
  json found = json::array();
  for (const json& f : stack["frames"]) {
    if (f.value("kind", "") != "javascript" || found.size() == most) continue;
    found.push_back(
        {f.value("function", ""), f.contains("file") ? f["file"] : json(nullptr), f.value("line", 0)});
  }
  return found;
}

class NodeCode : public Node {};

TEST_P(NodeCode, IsNamedWhereItWasWritten) {
  LOOPTRACE_NEEDS_ROOT();
  const std::string program = node(GetParam());
  if (program.empty()) GTEST_SKIP() << "no Node.js " << GetParam() << " here (tests/provision runtimes)";
  const std::string file = std::string(SOURCE_DIR) + "/tests/victims/js_places.js";
  const Directory directory;
  const Outcome made = run({program, file, "make", directory.path()});
  ASSERT_EQ(made.code, 0) << made.errors;
  const Renamed renamed(program);
  ASSERT_FALSE(renamed.path().empty());
  std::vector<std::string> command = {renamed.path(), file, "run", directory.path()};
  const bool transforms = GetParam() == std::string("22") || GetParam() == std::string("24");
  if (transforms) command.insert(command.begin() + 1, "--experimental-transform-types");
  Victim victim(command, {});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "20ms", "--max-line", "400000"});
  ASSERT_TRUE(trace.started());
  victim.process().signal(SIGUSR1);
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  EXPECT_EQ(truth.size(), std::stoi(GetParam()) >= 22 ? 14u : 13u) << victim.process().errors();
  const auto stalls = trace.stalls();
  for (const json& t : truth) {
    SCOPED_TRACE(t["shape"].get<std::string>());
    const json* s = overlapping(t, stalls);
    ASSERT_TRUE(s) << "missed: " << t.dump();
    json stack = json::object();
    for (const json& one : s->value("stacks", json::array())) {
      if (one["state"] == "blocked" && one["weight_ns"] > stack.value("weight_ns", 0u)) stack = one;
    }
    ASSERT_FALSE(stack.empty()) << s->dump();
    EXPECT_EQ(places(stack, t["frames"].size()), t["frames"]);
    if ((*s)["cause"]["kind"] == "runqueue") continue;  // the machine was busy with other things
    EXPECT_EQ((*s)["culprit"].value("function", ""), t["frames"][0][0]) << s->dump();
  }
}

INSTANTIATE_TEST_SUITE_P(NodeJs, Node, testing::Values("18", "20", "22", "24", "26"),
                         [](const auto& info) { return std::string(info.param); });
INSTANTIATE_TEST_SUITE_P(NodeJs, NodeCode, testing::Values("18", "20", "22", "24", "26"),
                         [](const auto& info) { return std::string(info.param); });

const char* const kBusy = R"script(
function burn() { for (const end = Date.now() + 100; Date.now() < end;); }
function handler() { burn(); }
console.log('ready');
setInterval(handler, 200);
)script";

// Of a V8 that is not known, only what it tells of itself.
TEST(NodeUnknown, KeepsTheNamesOfItsPerfMap) {
  LOOPTRACE_NEEDS_ROOT();
  const std::string program = node("23");
  if (program.empty()) GTEST_SKIP() << "no Node.js 23 here (tests/provision runtimes)";
  const Directory directory;  // V8 leaves a log where it was started
  ProcessOptions options;
  options.directory = directory.path();
  Victim victim({program, "--perf-basic-prof", "--interpreted-frames-native-stack", "-e", kBusy}, options);
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms", "--duration", "3s"});
  ASSERT_TRUE(trace.started());
  EXPECT_EQ(trace.wait(), 0) << trace.process().errors();
  victim.process().signal(SIGKILL);
  unlink(("/tmp/perf-" + std::to_string(victim.pid()) + ".map").c_str());
  size_t warnings = 0, named = 0;
  for (const json& w : trace.records("looptrace.warning/1")) {
    warnings += w["code"] == "runtime_unknown" &&
                w["message"].get<std::string>().find("Node.js 23") != std::string::npos;
  }
  EXPECT_EQ(warnings, 1u);
  for (const json& s : trace.stalls()) {
    for (const json& stack : s["stacks"]) {
      std::vector<std::string> jit;
      for (const json& f : stack["frames"]) {
        EXPECT_NE(f["kind"], "javascript") << stack.dump();
        if (f["kind"] == "jit") jit.push_back(f.value("function", ""));
      }
      named += jit.size() >= 2 && jit[0] == "burn" && jit[1] == "handler";
    }
  }
  EXPECT_GT(named, 0u);
}

}  // namespace
}  // namespace looptrace::test
