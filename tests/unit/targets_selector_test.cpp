// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "targets/scan.h"
#include "targets/selector.h"
#include "targets_fake_proc.h"

namespace looptrace {
namespace {

const std::string kId = "5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d";
const std::string kOtherId = "5f3b0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d";

class SelectorTest : public testing::Test {
 protected:
  SelectorTest() {
    fake_.add({.pid = 10, .comm = "server", .exe = "/opt/app/bin/server"});
    fake_.add({.pid = 20,
               .comm = "node",
               .exe = "/usr/bin/node",
               .cgroup = "0::/docker/" + kId + "\n",
               .threads = {{21, "libuv-worker"}, {22, "io-loop"}}});
    fake_.add({.pid = 30,
               .comm = "python3",
               .exe = "/usr/bin/python3.11",
               .cgroup = "2:cpu:/jobs/a\n0::/docker/" + kOtherId + "\n"});
    fake_.add({.pid = 2, .comm = "kworker/0:0", .flags = 0x00200000, .exe = "", .cgroup = "0::/\n"});
    std::filesystem::create_directories(fake_.root() + "/cg2/system.slice/server.service");
    std::filesystem::create_directories(fake_.root() + "/cgcpu/jobs/a");
    mounts_ = CgroupMounts({{"", fake_.root() + "/cg2", "/"}, {"cpu", fake_.root() + "/cgcpu", "/"}});
  }

  Matcher matcher(Selectors selectors) { return Matcher(std::move(selectors), fake_.procfs(), mounts_); }

  // "10 20:21,22": pids that match as a whole, and pid:threads of those that match in part
  std::string matched(Selectors selectors) {
    auto targets = scan(fake_.procfs(), matcher(std::move(selectors)));
    std::sort(targets.begin(), targets.end(),
              [](const auto& a, const auto& b) { return a.facts.pid < b.facts.pid; });
    std::string out;
    for (Target& target : targets) {
      if (!out.empty()) out += ' ';
      out += std::to_string(target.facts.pid);
      std::sort(target.match.threads.begin(), target.match.threads.end());
      const char* separator = ":";
      for (const pid_t tid : target.match.threads) {
        out += separator;
        out += std::to_string(tid);
        separator = ",";
      }
    }
    return out;
  }

  Error fault(Selectors selectors) {
    auto valid = matcher(std::move(selectors)).validate();
    return valid ? Error{} : valid.error();
  }

  FakeProc fake_;
  CgroupMounts mounts_;
};

TEST_F(SelectorTest, NothingAskedForIsEverythingButKernelThreads) {
  EXPECT_EQ(matched({}), "10 20 30");
  EXPECT_EQ(matched({.pids = {10}, .all = true}), "10 20 30");
}

TEST_F(SelectorTest, PidsAndTids) {
  fake_.show_threads();
  EXPECT_EQ(matched({.pids = {10, 30}}), "10 30");
  EXPECT_EQ(matched({.tids = {21}}), "20:21");
  EXPECT_EQ(matched({.tids = {20}}), "20:20") << "the main thread alone";
  EXPECT_EQ(matched({.pids = {20}, .tids = {21}}), "20");
  EXPECT_EQ(matched({.pids = {2}}), "") << "kernel thread";
  EXPECT_EQ(matched({.pids = {999}}), "");
}

TEST_F(SelectorTest, NamesOfProcessesAndOfThreads) {
  EXPECT_EQ(matched({.comms = {"node"}}), "20");
  EXPECT_EQ(matched({.comms = {"s*", "python?"}}), "10 30");
  EXPECT_EQ(matched({.comms = {"io-loop"}}), "20:22");
  EXPECT_EQ(matched({.comms = {"*lo*", "*worker"}}), "20:21,22");
  EXPECT_EQ(matched({.comms = {"nod"}}), "");
  fake_.add({.pid = 40, .comm = "a-very-long-nam"});
  EXPECT_EQ(matched({.comms = {"a-very-long-name-that-the-kernel-cut"}}), "40");
}

TEST_F(SelectorTest, HostileNamesMatchAsTheyAre) {
  fake_.add({.pid = 41, .comm = ") R 1 (\nx"});
  EXPECT_EQ(matched({.comms = {") R 1 (\nx"}}), "41");
  EXPECT_EQ(matched({.comms = {")*"}}), "41");
}

TEST_F(SelectorTest, Executables) {
  EXPECT_EQ(matched({.exes = {"/usr/bin/*"}}), "20 30");
  EXPECT_EQ(matched({.exes = {"python3*"}}), "30");
  EXPECT_EQ(matched({.exes = {"*/bin/server"}}), "10");
  EXPECT_EQ(matched({.exes = {"bin/server"}}), "");
}

TEST_F(SelectorTest, Cgroups) {
  EXPECT_EQ(matched({.cgroups = {"system.slice"}}), "10");
  EXPECT_EQ(matched({.cgroups = {"/sys/fs/cgroup/system.slice/"}}), "10");
  EXPECT_EQ(matched({.cgroups = {"/docker"}}), "20 30");
  EXPECT_EQ(matched({.cgroups = {"/dock"}}), "");
  EXPECT_EQ(matched({.cgroups = {fake_.root() + "/cgcpu/jobs"}}), "30");
  EXPECT_EQ(matched({.cgroups = {fake_.root() + "/cg2/jobs"}}), "") << "only in the cpu hierarchy";
  EXPECT_EQ(matched({.cgroups = {fake_.root() + "/cg2"}}), "10 20 30");
}

TEST_F(SelectorTest, Containers) {
  EXPECT_EQ(matched({.containers = {kId}}), "20");
  EXPECT_EQ(matched({.containers = {"5f3b"}}), "30");
  EXPECT_EQ(matched({.containers = {"containerd://" + kId}}), "20");
  EXPECT_EQ(matched({.containers = {"abc"}}), "");
}

TEST_F(SelectorTest, SelectorsAreCombinedWithOr) {
  EXPECT_EQ(matched({.pids = {10}, .comms = {"io-loop"}, .containers = {kOtherId}}), "10 20:22 30");
}

TEST_F(SelectorTest, ReadsOnlyWhatIsAskedFor) {
  EXPECT_EQ(matcher({}).parts(), 0u);
  EXPECT_EQ(matcher({.pids = {1}}).parts(), 0u);
  EXPECT_EQ(matcher({.comms = {"x"}}).parts(), unsigned{kPartThreads});
  EXPECT_EQ(matcher({.exes = {"x"}, .containers = {"y"}}).parts(), unsigned{kPartExe} | kPartCgroups);
  EXPECT_TRUE(matcher({.pids = {1}, .tids = {2}}).is_fixed());
  EXPECT_FALSE(matcher({.pids = {1}, .comms = {"x"}}).is_fixed());
  EXPECT_FALSE(matcher({}).is_fixed());
}

TEST_F(SelectorTest, ValidateNamesWhatIsNotThere) {
  fake_.show_threads();
  EXPECT_EQ(fault({.pids = {10}, .comms = {"later"}, .exes = {"/later"}}).what, "") << "names may come later";

  Error error = fault({.pids = {10, 4242}});
  EXPECT_EQ(error.fault, Fault::no_such_target);
  EXPECT_NE(error.message().find("--pid 4242: no process has this pid"), std::string::npos)
      << error.message();

  error = fault({.pids = {21}});
  EXPECT_NE(error.message().find("a thread of process 20"), std::string::npos) << error.message();
  error = fault({.pids = {2}});
  EXPECT_NE(error.message().find("kernel thread (kworker/0:0)"), std::string::npos) << error.message();

  EXPECT_EQ(fault({.tids = {21}}).what, "");
  EXPECT_EQ(fault({.tids = {4242}}).fault, Fault::no_such_target);

  EXPECT_EQ(fault({.cgroups = {"/jobs/a", "system.slice"}}).what, "");
  EXPECT_EQ(fault({.cgroups = {"/jobs/b"}}).fault, Fault::no_such_target);
  EXPECT_EQ(fault({.cgroups = {fake_.root() + "/cg2/jobs/a"}}).fault, Fault::no_such_target);

  EXPECT_EQ(fault({.containers = {"5f3a"}}).what, "");
  EXPECT_EQ(fault({.containers = {"web"}}).fault, Fault::no_such_target);
  error = fault({.containers = {"5f3"}});
  EXPECT_EQ(error.fault, Fault::usage) << "ambiguous";
  EXPECT_NE(error.message().find(kOtherId), std::string::npos);
}

TEST_F(SelectorTest, AReusedPidDoesNotMatch) {
  Matcher by_pid = matcher({.pids = {10}});
  ASSERT_TRUE(by_pid.validate());
  EXPECT_TRUE(by_pid.match(*read_process(fake_.procfs(), 10, 0)));
  fake_.remove(10);
  fake_.add({.pid = 10, .comm = "other", .start_ticks = 2000});
  EXPECT_FALSE(by_pid.match(*read_process(fake_.procfs(), 10, 0)));
}

TEST(Scan, IsFastEnough) {
  FakeProc fake;
  constexpr int kProcesses = 1000;
  for (int pid = 1; pid <= kProcesses; ++pid) fake.add({.pid = pid});
  const auto time = [&](Selectors selectors) {
    const Matcher matcher(std::move(selectors), fake.procfs(), CgroupMounts());
    const auto start = std::chrono::steady_clock::now();
    const size_t found = scan(fake.procfs(), matcher).size();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(found, size_t{kProcesses});
    return took.count();
  };
  const double all = time({}), names = time({.comms = {"server"}}), exes = time({.exes = {"server"}}),
               groups = time({.cgroups = {"/system.slice"}});
  RecordProperty("all_ms", std::to_string(all));
  std::printf("1,000 processes: all %.1f ms, comm %.1f ms, exe %.1f ms, cgroup %.1f ms\n", all, names, exes,
              groups);
  EXPECT_LT(std::max({all, names, exes, groups}), 1000.0);
}

TEST(Scan, FindsThisProcess) {
  const ProcFs procfs;
  Matcher matcher({.pids = {::getpid()}}, procfs, CgroupMounts::of_this_process(procfs));
  ASSERT_TRUE(matcher.validate());
  const auto targets = scan(procfs, matcher);
  ASSERT_EQ(targets.size(), 1u);
  EXPECT_EQ(targets[0].facts.pid, ::getpid());
  EXPECT_TRUE(targets[0].match.whole);

  Matcher by_comm({.comms = {read_thread_comm(procfs, ::getpid()).value()}}, procfs, CgroupMounts());
  const auto named = scan(procfs, by_comm);
  EXPECT_TRUE(
      std::any_of(named.begin(), named.end(), [](const Target& t) { return t.facts.pid == ::getpid(); }));
}

}  // namespace
}  // namespace looptrace
