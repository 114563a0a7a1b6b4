// SPDX-License-Identifier: Apache-2.0
// What JIT compilers tell of their code in /tmp/perf-PID.map, and what `check -p` says of each runtime.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "harness.h"

namespace looptrace::test {
namespace {

namespace fs = std::filesystem;

bool runs(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

std::string victim_file(const std::string& name) {
  return std::string(SOURCE_DIR) + "/tests/victims/" + name;
}

// opcache does not compile a file that was written a moment ago, as in a fresh checkout.
std::vector<std::string> php_with_jit() {
  return {"/usr/bin/env",
          "php",
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
    const fs::path map = "/tmp/perf-" + std::to_string(php.pid()) + ".map";
    std::ifstream in(map);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    EXPECT_NE(text.find("JIT$price_basket"), std::string::npos) << "the map that PHP wrote: " << text;
    prepare(map);
    Trace trace({"--pid", std::to_string(php.pid()), "--threshold", "50ms"});
    EXPECT_TRUE(trace.started());
    EXPECT_EQ(php.truth().size(), 5u);
    EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
    fs::remove(map);
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
