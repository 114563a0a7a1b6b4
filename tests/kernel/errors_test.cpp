// SPDX-License-Identifier: Apache-2.0
// What cannot be done is refused with the contract's exit code and a message that tells the mend; and what
// looptrace leaves behind, however it ends, is nothing.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "harness.h"
#include "record_rules.h"

namespace looptrace::test {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Refusal {
  const char* name;
  std::vector<std::string> args;
  int code;
  const char* says;
};

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, WithCodeAndReason) {
  LOOPTRACE_NEEDS_ROOT();
  const Refusal& r = GetParam();
  const Outcome o = run_looptrace(r.args);
  EXPECT_EQ(o.code, r.code) << o.errors;
  EXPECT_TRUE(has(o.errors, r.says)) << o.errors;
  EXPECT_TRUE(o.errors.starts_with("looptrace: ")) << o.errors;
  EXPECT_EQ(std::count(o.errors.begin(), o.errors.end(), '\n'), 1) << o.errors;
  EXPECT_EQ(o.out, "");
}

const Refusal kRefusals[] = {
    {"pid", {"-p", "4194303"}, 3, "no process has this pid"},
    {"tid", {"-t", "4194303"}, 3, "no thread has this id"},
    {"kernel_thread", {"-p", "2"}, 3, "kernel thread"},
    {"cgroup", {"--cgroup", "/no/such/group"}, 3, "no such cgroup"},
    {"container", {"--container", "0123456789ab"}, 3, "no process runs in a container"},
    {"duration", {"-d", "soon"}, 2, "--duration"},
    {"threshold", {"-m", "-5"}, 2, "--threshold"},
    {"option", {"--bogus"}, 2, "no option --bogus"},
    {"command", {"frobnicate"}, 2, "no command 'frobnicate'"},
    {"hook", {"--hook", "sometimes"}, 2, "--hook"},
    {"all_and_pid", {"--all", "-p", "1"}, 2, "--all"},
    {"top", {"top"}, 2, "not available"},
    {"report", {"report"}, 2, "not available"},
    {"explain", {"explain"}, 2, "not available"},
    {"run", {"run"}, 2, "not available"},
    {"agent_config", {"agent", "--config", "/no/such/looptrace.conf"}, 2, "read the configuration /no/such"},
    {"directory", {"-d", "1s", "-o", "/no/such/directory/log"}, 1, "create its directory"},
};

INSTANTIATE_TEST_SUITE_P(Errors, Refused, testing::ValuesIn(kRefusals),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Privileges, WithoutRootItNamesWhatIsMissing) {
  LOOPTRACE_NEEDS_ROOT();
  const Outcome o =
      run({"/usr/bin/setpriv", "--reuid", "65534", "--clear-groups", LOOPTRACE_BINARY, "-d", "1s"});
  if (has(o.errors, "Permission denied")) GTEST_SKIP() << "nobody may not even start " << LOOPTRACE_BINARY;
  EXPECT_EQ(o.code, 4) << o.errors;
  EXPECT_TRUE(has(o.errors, "CAP_BPF") && has(o.errors, "root")) << o.errors;
}

TEST(Privileges, OneMissingCapabilityIsNamedAlone) {
  LOOPTRACE_NEEDS_ROOT();
  const Outcome o = run({"/usr/bin/setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace",
                         LOOPTRACE_BINARY, "-d", "1s"});
  EXPECT_EQ(o.code, 4) << o.errors;
  EXPECT_TRUE(has(o.errors, "missing: CAP_SYS_PTRACE;") || has(o.errors, "missing: CAP_SYS_PTRACE)"))
      << o.errors;
}

Outcome without_tracefs(const std::string& args) {
  return run({"/usr/bin/unshare", "-m", "/bin/sh", "-c",
              "umount /sys/kernel/tracing /sys/kernel/debug/tracing /sys/kernel/debug 2>/dev/null; "
              "test -e /sys/kernel/tracing/events && exit 99; exec " +
                  std::string(LOOPTRACE_BINARY) + " -f json " + args});
}

// Nor for a loop that never sleeps, whose polls the tracepoints would see.
TEST(Tracefs, IsNotNeededByDefault) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_busy_stall",
                {"--count", "3", "--stall-ms", "150", "--gap-ms", "200", "--delay-ms", "20000"});
  std::thread begin([&] { usleep(2'000'000), victim.begin(); });
  const Outcome o = without_tracefs("--hook auto -d 4s -p " + std::to_string(victim.pid()));
  begin.join();
  if (o.code == 99) GTEST_SKIP() << "tracefs cannot be unmounted here";
  EXPECT_EQ(o.code, 0) << o.errors;
  std::vector<json> stalls;
  std::istringstream lines(o.out);
  for (std::string line; std::getline(lines, line);) {
    json record = json::parse(line);
    if (record["schema"] == "looptrace.stall/1" && record["state"] == "closed")
      stalls.push_back(std::move(record));
  }
  expect_exactly(stalls, victim.truth());
}

TEST(Tracefs, IsAskedForWhereEveryPollIsToBeHooked) {
  LOOPTRACE_NEEDS_ROOT();
  const Outcome o = without_tracefs("--hook always -d 0.3s");
  if (o.code == 99) GTEST_SKIP() << "tracefs cannot be unmounted here";
  if (has(run_looptrace({"check"}).out, "yes      fentry"))
    GTEST_SKIP() << "fentry works here: tracefs is not needed";
  EXPECT_EQ(o.code, 4) << o.errors;
  EXPECT_TRUE(has(o.errors, "mount -t tracefs")) << o.errors;
}

/// A kernel without BTF, as far as looptrace can tell.
Outcome without_btf(const std::string& command) {
  return run({"/usr/bin/unshare", "-m", "/bin/sh", "-c",
              "mount -t tmpfs none /sys/kernel/btf || exit 99; exec " + std::string(LOOPTRACE_BINARY) + " " +
                  command});
}

TEST(Btf, IsAskedForWithItsMend) {
  LOOPTRACE_NEEDS_ROOT();
  const Outcome trace = without_btf("-d 1s");
  if (trace.code == 99) GTEST_SKIP() << "/sys/kernel/btf cannot be hidden here";
  EXPECT_EQ(trace.code, 4) << trace.errors;
  EXPECT_TRUE(has(trace.errors, "CONFIG_DEBUG_INFO_BTF")) << trace.errors;
  const Outcome check = without_btf("check");
  EXPECT_EQ(check.code, 4) << check.errors;
  EXPECT_TRUE(has(check.out, "CONFIG_DEBUG_INFO_BTF")) << check.out;
}

TEST(Texts, CheckTellsWhatThisKernelAllows) {
  LOOPTRACE_NEEDS_ROOT();
  const Outcome o = run_looptrace({"check"});
  EXPECT_EQ(o.code, 0);
  EXPECT_TRUE(has(o.out, "looptrace can run here")) << o.out;
  const Outcome j = run_looptrace({"check", "--json"});
  EXPECT_EQ(j.code, 0);
  const json check = json::parse(j.out, nullptr, false);
  ASSERT_TRUE(check.is_object()) << j.out;
  EXPECT_EQ(RecordRules().fault(j.out, 0), "");
}

TEST(Texts, SchemasAreJsonSchemas) {
  const Outcome one = run_looptrace({"schema", "stall"});
  EXPECT_EQ(one.code, 0);
  const json schema = json::parse(one.out, nullptr, false);
  ASSERT_TRUE(schema.is_object());
  EXPECT_EQ(schema["title"], "looptrace.stall/1");
  EXPECT_EQ(run_looptrace({"schema"}).code, 0);
  EXPECT_EQ(run_looptrace({"schema", "nonsense"}).code, 2);
}

TEST(Texts, VersionAndHelpGoToStandardOutput) {
  const Outcome version = run_looptrace({"--version"}), help = run_looptrace({"--help"});
  EXPECT_EQ(version.code, 0);
  EXPECT_TRUE(version.out.starts_with("looptrace ")) << version.out;
  EXPECT_EQ(help.code, 0);
  EXPECT_TRUE(has(help.out, "--threshold"));
  EXPECT_EQ(version.errors + help.errors, "");
}

TEST(Texts, NoColorIsHonoured) {
  LOOPTRACE_NEEDS_ROOT();
  // script gives it a terminal.
  const auto check = [](const std::string& env) {
    return run({"/usr/bin/env", "TERM=xterm", "/bin/sh", "-c",
                env + " script -qec '" + std::string(LOOPTRACE_BINARY) + " check' /dev/null"});
  };
  const Outcome plain = check("NO_COLOR=1"), coloured = check("");
  if (plain.code == 127) GTEST_SKIP() << "script is not installed";
  EXPECT_TRUE(has(plain.out, "looptrace can run here")) << plain.out << plain.errors;
  EXPECT_FALSE(has(plain.out, "\x1b["));
  EXPECT_TRUE(has(coloured.out, "\x1b["));
}

/// The BPF programs that a process holds.
std::set<int> programs_of(pid_t pid) {
  std::set<int> ids;
  const std::string directory = "/proc/" + std::to_string(pid) + "/fdinfo";
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("prog_id:")) ids.insert(std::stoi(line.substr(8)));
    }
  }
  return ids;
}

std::set<int> programs() {
  std::set<int> ids;
  const json all = json::parse(run({"/usr/sbin/bpftool", "-j", "prog", "show"}).out, nullptr, false);
  for (const json& program : all) ids.insert(program.value("id", 0));
  return ids;
}

TEST(Life, KilledItLeavesNothingAttached) {
  LOOPTRACE_NEEDS_ROOT();
  if (access("/usr/sbin/bpftool", X_OK)) GTEST_SKIP() << "bpftool is not installed";
  Trace trace({"--all"});
  ASSERT_TRUE(trace.started());
  const std::set<int> its = programs_of(trace.process().pid());
  ASSERT_GE(its.size(), 5u);
  trace.process().signal(SIGKILL);
  EXPECT_EQ(trace.process().wait(), 128 + SIGKILL);
  size_t left = its.size();
  for (int i = 0; i < 100 && left; ++i) {  // the kernel frees them after a grace period
    usleep(20'000);
    const std::set<int> now = programs();
    left =
        static_cast<size_t>(std::count_if(its.begin(), its.end(), [&](int id) { return now.contains(id); }));
  }
  EXPECT_EQ(left, 0u);
}

TEST(Life, TwoAtOnceSeeTheSame) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "3", "--stall-ms", "80", "--delay-ms", "1000"});
  const std::string pid = std::to_string(victim.pid());
  Trace one({"--pid", pid}), two({"--pid", pid, "--hook", "always"});
  ASSERT_TRUE(one.started() && two.started());
  const auto truth = victim.truth();
  EXPECT_EQ(one.stop(), 0);
  EXPECT_EQ(two.stop(), 0);
  ASSERT_EQ(truth.size(), 3u);
  expect_exactly(one.stalls(), truth);
  expect_exactly(two.stalls(), truth);
}

TEST(Life, EndsWithTheLastProcessThatItsIdsName) {
  LOOPTRACE_NEEDS_ROOT();
  Victim first("epoll_sleep", {"--count", "1", "--stall-ms", "80", "--delay-ms", "1500"}),
      last("epoll_sleep", {"--count", "2", "--stall-ms", "80", "--delay-ms", "2200"});
  Trace trace({"--pid", std::to_string(first.pid()), "--tid", std::to_string(last.pid())});
  ASSERT_TRUE(trace.started());
  auto truth = first.truth();
  usleep(100'000);
  EXPECT_FALSE(trace.process().ended()) << "the other is still there";
  for (const json& t : last.truth()) truth.push_back(t);
  EXPECT_EQ(trace.wait(5), 0);
  EXPECT_TRUE(has(trace.process().errors(), "has ended")) << trace.process().errors();
  ASSERT_EQ(truth.size(), 3u);
  expect_exactly(trace.stalls(), truth);
  EXPECT_TRUE(trace.summary());
}

TEST(Life, AttachesWithinASecond) {
  LOOPTRACE_NEEDS_ROOT();
  double best = 1e9;
  Victim victim("epoll_sleep", {"--count", "0", "--delay-ms", "20000"});
  for (int i = 0; i < 3; ++i) {
    const uint64_t from = monotonic_ns();
    Trace trace({"--pid", std::to_string(victim.pid())});
    ASSERT_TRUE(trace.started());
    best = std::min(best, static_cast<double>(trace.process().arrivals().at(0) - from) / 1e6);
    EXPECT_EQ(trace.stop(), 0);
  }
  std::printf("from exec to the start record: %.0f ms\n", best);
  EXPECT_LT(best, 1000);
  victim.process().signal(SIGKILL);
}

}  // namespace
}  // namespace looptrace::test
