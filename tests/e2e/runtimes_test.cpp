// SPDX-License-Identifier: Apache-2.0
// What JIT compilers tell of their code in /tmp/perf-PID.map, and what `check -p` says of each runtime.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "../pythons.h"
#include "harness.h"

namespace looptrace::test {
namespace {

namespace fs = std::filesystem;

bool runs(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

std::string victim_file(const std::string& name) {
  return std::string(SOURCE_DIR) + "/tests/victims/" + name;
}

// In a mount namespace with a /tmp of its own, as in a container (unless that would hide the victim). opcache
// does not compile a file that was written a moment ago, as in a fresh checkout.
std::vector<std::string> php_with_jit() {
  const bool hidden = std::string(SOURCE_DIR).starts_with("/tmp/");
  return {"/usr/bin/unshare",
          "--mount",
          "sh",
          "-c",
          std::string(hidden ? "" : "mount -t tmpfs none /tmp && ") + "exec php \"$@\"",
          "sh",
          "-d",
          "opcache.enable_cli=1",
          "-d",
          "opcache.file_update_protection=0",
          "-d",
          "opcache.jit_buffer_size=32M",
          "-d",
          "opcache.jit=function",
          "-d",
          "opcache.jit_debug=0x10",
          victim_file("jit.php")};
}

class PerfMaps : public testing::Test {
 protected:
  void SetUp() override {
    LOOPTRACE_NEEDS_ROOT();
    if (!runs("php -r 'exit(function_exists(\"opcache_get_status\") ? 0 : 1);'"))
      GTEST_SKIP() << "no PHP with opcache; tests/provision e2e installs it";
  }

  // Traces PHP, after `prepare` was given the path of its map.
  template <typename Prepare>
  std::vector<json> stalls_after(const Prepare& prepare) {
    Victim php(php_with_jit());
    EXPECT_TRUE(php.ready()) << php.process().errors();
    const std::string pid = std::to_string(php.pid());
    const fs::path map = "/proc/" + pid + "/root/tmp/perf-" + pid + ".map";
    std::ifstream in(map);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    EXPECT_NE(text.find("JIT$price_basket"), std::string::npos) << "the map that PHP wrote: " << text;
    prepare(map);
    Trace trace({"--pid", std::to_string(php.pid()), "--threshold", "50ms"});
    EXPECT_TRUE(trace.started());
    EXPECT_EQ(php.truth().size(), 5u);
    EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
    std::error_code gone;  // with its mount namespace
    fs::remove("/tmp/perf-" + pid + ".map", gone);
    auto stalls = trace.stalls();
    EXPECT_EQ(stalls.size(), 5u);
    loops_ = trace.records("looptrace.loop/1");
    return stalls;
  }

  std::vector<json> loops_;
};

bool has_frame(const json& stack, const std::string& name) {
  return std::any_of(stack["frames"].begin(), stack["frames"].end(),
                     [&](const json& f) { return f.value("function", "") == name; });
}

TEST_F(PerfMaps, NameCompiledFunctions) {
  size_t named = 0;
  for (const json& s : stalls_after([](const fs::path&) {})) {
    if (s["cause"]["kind"] == "runqueue") continue;
    ++named;
    EXPECT_EQ(s["culprit"].value("function", ""), "JIT$price_basket") << s.dump();
    EXPECT_EQ(s["culprit"].value("kind", ""), "jit") << s.dump();
    EXPECT_FALSE(s["culprit"].contains("module")) << s.dump();
    // PHP's compiled code has no frame pointers: what is below it is not known, and that is said.
    for (const json& stack : s["stacks"]) {
      EXPECT_TRUE(!has_frame(stack, "JIT$price_basket") || stack.value("incomplete", false)) << stack.dump();
    }
  }
  EXPECT_GT(named, 0u) << "the machine is too busy to tell";
  uint64_t counted = 0;
  for (const json& loop : loops_) {
    const json stacks = loop.value("stacks", json::object()),
               why = stacks.value("incomplete", json::object());
    for (const json& n : why) counted += n.get<uint64_t>();
  }
  EXPECT_GT(counted, 0u);
}

// Anyone may write a file of that name to /tmp before the process does.
TEST_F(PerfMaps, OfAnotherUserAreNotBelieved) {
  constexpr uid_t kNobody = 65534;
  const auto stalls =
      stalls_after([](const fs::path& map) { ASSERT_EQ(chown(map.c_str(), kNobody, kNobody), 0); });
  size_t seen = 0;
  for (const json& s : stalls) {
    for (const json& stack : s.value("stacks", json::array())) {
      ++seen;
      EXPECT_FALSE(has_frame(stack, "JIT$price_basket")) << stack.dump();
    }
  }
  EXPECT_GT(seen, 0u);
}

struct Jit {
  const char* name;
  const char* needs;
  std::vector<std::string> command;
};

class JitWithoutMap : public testing::TestWithParam<Jit> {};

// As Debian builds them, they write none: then no frame of theirs has a name or a module.
TEST_P(JitWithoutMap, IsNotTakenForAnythingElse) {
  LOOPTRACE_NEEDS_ROOT();
  if (!runs(GetParam().needs)) GTEST_SKIP() << GetParam().needs << " fails: tests/provision e2e";
  Victim victim(GetParam().command);
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  EXPECT_EQ(victim.truth().size(), 3u);
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const auto stalls = trace.stalls();
  EXPECT_EQ(stalls.size(), 3u);
  size_t of_the_jit = 0;
  for (const json& s : stalls) {
    EXPECT_TRUE(s["cause"]["kind"] == "cpu" || s["cause"]["kind"] == "runqueue") << s.dump();
    for (const json& stack : s.value("stacks", json::array())) {
      for (const json& frame : stack["frames"]) {
        if (frame.contains("module") || frame["kind"] == "kernel") continue;
        ++of_the_jit;
        EXPECT_FALSE(frame.contains("function")) << frame.dump();
        EXPECT_TRUE(frame.value("guessed", false)) << frame.dump();
      }
    }
  }
  EXPECT_GT(of_the_jit, 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Runtimes, JitWithoutMap,
    testing::Values(Jit{"Ruby",
                        "ruby --yjit -e 'exit(RubyVM::YJIT.enabled?)'",
                        {"/usr/bin/env", "ruby", "--yjit", victim_file("jit.rb")}},
                    Jit{"LuaJIT", "luajit -v", {"/usr/bin/env", "luajit", victim_file("jit.lua")}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(LuaJit, IsNamedByItsMap) {
  LOOPTRACE_NEEDS_ROOT();
  if (!runs("luajit -v")) GTEST_SKIP() << "no luajit: tests/provision e2e";
  const std::string file = victim_file("jit.lua");
  Victim victim({"/usr/bin/env", "luajit", file, "map"});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  EXPECT_EQ(victim.truth().size(), 3u);
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  fs::remove("/tmp/perf-" + std::to_string(victim.pid()) + ".map");
  const auto stalls = trace.stalls();
  EXPECT_EQ(stalls.size(), 3u);
  std::ifstream in(file);
  int line = 0, inner = 0;  // the loop that is compiled
  for (std::string text; std::getline(in, text);)
    if (++line, text.find("for i = 1, 20000") != std::string::npos) inner = line;
  size_t named = 0;
  for (const json& s : stalls) {
    for (const json& stack : s.value("stacks", json::array())) {
      const json& leaf = stack["frames"][0];
      if (stack["state"] != "on_cpu" || leaf["kind"] != "jit") continue;
      ++named;
      EXPECT_TRUE(leaf.value("function", "").starts_with("TRACE_")) << leaf.dump();
      EXPECT_EQ(leaf.value("file", ""), file) << leaf.dump();
      EXPECT_EQ(leaf.value("line", 0), inner) << leaf.dump();
      EXPECT_TRUE(leaf.value("at_definition", false)) << leaf.dump();
    }
    if (s["cause"]["kind"] == "cpu") {
      EXPECT_EQ(s["culprit"].value("line", 0), inner) << s.dump();
    }
  }
  EXPECT_GT(named, 0u);
}

// By DWARF, and stripped by the tables of its runtime: from the function that stalls to the goroutine's
// start. A stall is not the standard library's.
TEST(Go, StacksReachTheStart) {
  LOOPTRACE_NEEDS_ROOT();
  if (!runs("go version")) GTEST_SKIP() << "no Go here";
  const Directory directory;
  for (const std::string kind : {"full", "stripped"}) {
    SCOPED_TRACE(kind);
    const std::string program = directory.path() + "/" + kind;
    const Outcome built =
        run({"/usr/bin/env", "CGO_ENABLED=0", "go", "build", kind == "full" ? "-ldflags=" : "-ldflags=-s",
             "-o", program, victim_file("go_loop.go")},
            60);
    if (built.code != 0) GTEST_SKIP() << built.errors;
    Victim victim(std::vector<std::string>{program}, ProcessOptions());
    ASSERT_TRUE(victim.ready()) << victim.process().errors();
    Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
    ASSERT_TRUE(trace.started());
    EXPECT_EQ(victim.process().wait(), 0);
    EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
    size_t naps = 0, spins = 0, looked_at = 0;
    for (const json& s : trace.stalls()) {
      const bool nap = s["cause"]["kind"] == "sleep";
      (nap ? naps : spins) += 1;
      const json wanted =
          nap ? json{"syscall.Nanosleep", "main.nap", "main.(*shop).sell", "main.main", "runtime.main"}
              : json{"main.spin", "main.(*shop).sell", "main.main", "runtime.main"};
      for (const json& stack : s.value("stacks", json::array())) {
        json functions = json::array();
        for (const json& f : stack["frames"]) {
          EXPECT_FALSE(f.value("guessed", false)) << stack.dump();
          if (f["kind"] != "kernel") functions.push_back(f.value("function", "?"));
        }
        const auto at = std::search(functions.begin(), functions.end(), wanted.begin(), wanted.end());
        if (at == functions.end()) continue;  // of the loop, before or after
        ++looked_at;
        EXPECT_EQ(functions.end() - at, static_cast<ptrdiff_t>(wanted.size()) + 1) << stack.dump();
        EXPECT_TRUE(functions.back().get<std::string>().starts_with("runtime.goexit")) << stack.dump();
        EXPECT_FALSE(stack.value("incomplete", false)) << stack.dump();
      }
      if (s["cause"]["kind"] == "runqueue") continue;  // the machine was busy with other things
      const std::string culprit = s["culprit"].value("function", "");
      EXPECT_TRUE(nap ? culprit == "main.nap" : culprit == "main.spin" || culprit == "main.clock")
          << s.dump();
    }
    EXPECT_EQ(naps, 3u);
    EXPECT_EQ(spins, 3u);
    EXPECT_GE(looked_at, 6u);
  }
}

// CoreCLR waits on condition variables for sleeps and for locks alike.
TEST(Dotnet, CausesAreToldApart) {
  LOOPTRACE_NEEDS_ROOT();
  const fs::path here = fs::path(cache_directory()) / "dotnet";
  if (!fs::exists(here / "DotnetWork.dll")) GTEST_SKIP() << "no " << here << "; tests/provision e2e makes it";
  Victim victim({"/usr/bin/env", "COMPlus_PerfMapEnabled=1", here / "bin/dotnet", here / "DotnetWork.dll"});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  fs::remove("/tmp/perf-" + std::to_string(victim.pid()) + ".map");
  fs::remove("/tmp/perfinfo-" + std::to_string(victim.pid()) + ".map");
  const auto stalls = trace.stalls();
  ASSERT_EQ(stalls.size(), truth.size());
  ASSERT_EQ(truth.size(), 8u);
  // The library's own Thread.Sleep() has no frame pointer, which hides who called it.
  const std::map<std::string, std::set<std::string>> culprits = {
      {"sleep", {"DotnetWork.CallPayment", "DotnetWork.Main"}},
      {"lock", {"DotnetWork.ReserveStock"}},
      {"cpu", {"DotnetWork.PriceBasket"}},
      {"gc", {"DotnetWork.Collect"}}};
  for (size_t i = 0; i < stalls.size(); ++i) {
    const json& s = stalls[i];
    EXPECT_TRUE(s["process"].value("runtime", "").starts_with("dotnet 3.1")) << s["process"].dump();
    if (s["cause"]["kind"] == "runqueue") continue;
    EXPECT_EQ(s["cause"]["kind"], truth[i]["kind"]) << s.dump();
    EXPECT_TRUE(culprits.at(truth[i]["kind"]).contains(s["culprit"].value("function", ""))) << s.dump();
    EXPECT_FALSE(s["culprit"].contains("module")) << s.dump();
  }
}

struct Expected {
  const char* name;
  const char* needs;  // a command that succeeds where the runtime is here
  std::vector<std::string> command;
  const char* runtime;  // as `check -p` calls it
};

class Check : public testing::TestWithParam<Expected> {};

TEST_P(Check, SaysWhichRuntimeItFound) {
  LOOPTRACE_NEEDS_ROOT();
  if (!runs(GetParam().needs)) GTEST_SKIP() << GetParam().needs << " fails: tests/provision runtimes e2e";
  Victim victim(GetParam().command);
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  usleep(500'000);
  const Outcome check = run_looptrace({"check", "-p", std::to_string(victim.pid())});
  EXPECT_EQ(check.code, 0) << check.errors;
  const std::string pid = "pid " + std::to_string(victim.pid()) + " ";
  const auto line_of = [&](const std::string& what) {
    const size_t at = check.out.find(pid + what);
    return at == std::string::npos ? "" : check.out.substr(at, check.out.find('\n', at) - at);
  };
  EXPECT_NE(line_of("process").find(GetParam().runtime), std::string::npos) << check.out;
  unsigned whole = 0, walked = 0;
  const std::string stacks = line_of("stacks");
  ASSERT_FALSE(stacks.empty()) << check.out;
  ASSERT_EQ(std::sscanf(stacks.c_str() + stacks.find("stacks") + 6, " %u of %u blocked", &whole, &walked), 2)
      << check.out;
  EXPECT_GT(whole, 0u) << stacks;
  EXPECT_EQ(whole, walked) << stacks;
  victim.process().signal(SIGKILL);
}

const Expected kExpected[] = {
    {"CPython",
     "python3 -V",
     {"/usr/bin/env", "python3", "-uc", "import time; print('ready'); time.sleep(20)"},
     ", cpython 3."},
    {"Node",
     "node --version",
     {"/usr/bin/env", "node", "-e", "console.log('ready'); setTimeout(() => {}, 20000)"},
     ", node "},
    {"Java",
     "javac -version",
     {"/usr/bin/env", "java", std::string(SOURCE_DIR) + "/tests/victims/JavaWork.java"},
     ", openjdk "},
    {"PHP", "php -v", {"/usr/bin/env", "php", "-r", "echo \"ready\\n\"; sleep(20);"}, ", native"},
};

INSTANTIATE_TEST_SUITE_P(Runtimes, Check, testing::ValuesIn(kExpected),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace looptrace::test
