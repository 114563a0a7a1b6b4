// SPDX-License-Identifier: Apache-2.0
// Every selector traces what it names, all of it and nothing else; also what starts later, forks, executes,
// takes a new name or a used pid, and lives in other namespaces.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "harness.h"

namespace looptrace::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> stalling(std::vector<std::string> more = {}) {
  std::vector<std::string> args = {"--count",  "2",  "--stall-ms", "70",
                                   "--gap-ms", "30", "--delay-ms", "1000"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::vector<std::string> command_of(const std::string& program, std::vector<std::string> more = {}) {
  auto args = stalling(std::move(more));
  args.insert(args.begin(), program);
  return args;
}

bool has_function(const json& stall, const std::string& function) {
  return stall.dump().find("\"function\":\"" + function + "\"") != std::string::npos;
}

std::vector<json> of_thread(const std::vector<json>& stalls, pid_t tid) {
  std::vector<json> out;
  std::copy_if(stalls.begin(), stalls.end(), std::back_inserter(out),
               [&](const json& s) { return s["thread"]["id"] == tid; });
  return out;
}

/// Other tests may run on this machine, with victims of the same names: those of our own processes.
std::vector<json> ours(const std::vector<json>& stalls, std::initializer_list<const Victim*> victims,
                       const std::vector<json>& truth) {
  std::vector<json> out;
  std::copy_if(stalls.begin(), stalls.end(), std::back_inserter(out), [&](const json& s) {
    const pid_t pid = s["process"]["pid"];
    return std::any_of(victims.begin(), victims.end(), [&](const Victim* v) { return v->pid() == pid; }) ||
           std::any_of(truth.begin(), truth.end(), [&](const json& t) { return t["pid"] == pid; });
  });
  return out;
}

TEST(Selectors, SeveralPidsAndNothingElse) {
  LOOPTRACE_NEEDS_ROOT();
  Victim a("epoll_sleep", stalling()), b("epoll_sleep", stalling()), other("epoll_sleep", stalling());
  Trace trace({"--pid", std::to_string(a.pid()), "--pid", std::to_string(b.pid())});
  ASSERT_TRUE(trace.started());
  const auto of_a = a.truth(), of_b = b.truth();
  (void)other.truth();
  EXPECT_EQ(trace.stop(), 0);
  auto all = of_a;
  all.insert(all.end(), of_b.begin(), of_b.end());
  ASSERT_EQ(all.size(), 4u);
  expect_exactly(trace.stalls(), all);
}

TEST(Selectors, OneThreadOfMany) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", stalling({"--threads", "4"}));
  usleep(50'000);
  std::vector<pid_t> threads = threads_named(victim.pid(), "victim_epoll_sl");
  ASSERT_EQ(threads.size(), 5u);
  const pid_t chosen = threads[2];
  Trace trace({"--tid", std::to_string(chosen)});
  ASSERT_TRUE(trace.started());
  const auto truth = of_thread(
      [&] {
        std::vector<json> out;
        for (json t : victim.truth()) {
          t["thread"]["id"] = t["tid"];
          out.push_back(t);
        }
        return out;
      }(),
      chosen);
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 2u);
  expect_exactly(trace.stalls(), truth);
  EXPECT_EQ(trace.summary()->value("stalls_seen", 0), 2);
}

TEST(Selectors, ManyIdleThreadsBesideTheChosenOne) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("many_loops", stalling({"--threads", "20"}));
  usleep(50'000);
  const auto idle = threads_named(victim.pid(), "idle-loop");
  ASSERT_EQ(idle.size(), 20u);
  Trace trace({"--tid", std::to_string(idle[7])});
  ASSERT_TRUE(trace.started());
  EXPECT_EQ(victim.truth().size(), 2u);
  EXPECT_EQ(trace.stop(), 0);
  EXPECT_TRUE(trace.stalls().empty());
}

TEST(Selectors, CommNamesProcessesAlsoLaterOnes) {
  LOOPTRACE_NEEDS_ROOT();
  Trace trace({"--comm", "victim_epoll_s?"});
  ASSERT_TRUE(trace.started());
  Victim victim("epoll_sleep", stalling({"--delay-ms", "200"})),
      other("epoll_cpu", stalling({"--delay-ms", "200"}));
  const auto truth = victim.truth();
  (void)other.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 2u);
  expect_exactly(ours(trace.stalls(), {&victim, &other}, truth), truth);
}

TEST(Selectors, CommNamesThreads) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("many_loops", stalling({"--threads", "10", "--delay-ms", "1000"}));
  Trace trace({"--comm", "stalling-*"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 2u);
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  expect_exactly(stalls, truth);
  for (const json& s : stalls) EXPECT_EQ(s["thread"]["name"], "stalling-loop");
  EXPECT_EQ(of_pid(trace.records("looptrace.loop/1"), victim.pid()).size(), 1u)
      << "the other threads were not asked for";
}

TEST(Selectors, ForkedWorkersOfATargetAreTargets) {
  LOOPTRACE_NEEDS_ROOT();
  for (const char* selector : {"--comm=worker", "--exe=*/victim_fork_workers"}) {
    Trace trace({selector});
    ASSERT_TRUE(trace.started());
    Victim parent("fork_workers", stalling({"--delay-ms", "200"}));
    const auto truth = parent.truth();
    EXPECT_EQ(trace.stop(), 0);
    ASSERT_EQ(truth.size(), 8u);
    SCOPED_TRACE(selector);
    expect_exactly(ours(trace.stalls(), {&parent}, truth), truth);
  }
}

TEST(Selectors, APidIsThatProcessAlone) {
  LOOPTRACE_NEEDS_ROOT();
  Victim shell(std::vector<std::string>{
      "/bin/sh", "-c",
      "echo ready; sleep 1; " + victim_path("fork_workers") + " --count 1 --delay-ms 200; true"});
  Trace trace({"--pid", std::to_string(shell.pid())});
  ASSERT_TRUE(trace.started());
  EXPECT_EQ(shell.truth().size(), 4u);
  EXPECT_EQ(trace.stop(), 0);
  EXPECT_TRUE(trace.stalls().empty());
}

TEST(Selectors, ExecIntoANameThatMatches) {
  LOOPTRACE_NEEDS_ROOT();
  Directory directory;
  const std::string wanted = directory.path() + "/wanted";
  fs::create_symlink(victim_path("epoll_sleep"), wanted);
  Trace trace({"--comm", "wanted"});
  ASSERT_TRUE(trace.started());
  Victim victim("exec_in_stall", {"--stall-ms", "70", "--delay-ms", "200", "--flavour", wanted});
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 4u);  // one before the exec
  expect_exactly(of_pid(trace.stalls(), victim.pid()), {truth.begin() + 1, truth.end()});
  for (const json& s : of_pid(trace.stalls(), victim.pid()))
    EXPECT_TRUE(has_function(s, "sleep_in_callback")) << s.dump();
}

TEST(Selectors, ExecIntoANameThatDoesNotMatch) {
  LOOPTRACE_NEEDS_ROOT();
  Directory directory;
  const std::string other = directory.path() + "/other";
  fs::create_symlink(victim_path("epoll_sleep"), other);
  Trace trace({"--comm", "victim_exec_in*"});
  ASSERT_TRUE(trace.started());
  Victim victim("exec_in_stall", {"--stall-ms", "70", "--delay-ms", "200", "--flavour", other});
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 4u);
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  expect_exactly(stalls, {truth.begin(), truth.begin() + 1}, 5'000'000);
  ASSERT_EQ(stalls.size(), 1u);
  EXPECT_EQ(stalls[0]["ended_by"], "exec");
}

TEST(Selectors, APidStaysATargetThroughExecWithTheNewProgramsNames) {
  LOOPTRACE_NEEDS_ROOT();
  Directory directory;
  const std::string other = directory.path() + "/other";
  fs::create_symlink(victim_path("epoll_cpu"), other);
  Victim victim("exec_in_stall", {"--stall-ms", "70", "--delay-ms", "1000", "--flavour", other});
  Trace trace({"--pid", std::to_string(victim.pid())});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  expect_exactly(stalls, truth, 5'000'000);
  ASSERT_EQ(stalls.size(), 4u);
  EXPECT_EQ(stalls[3]["process"]["comm"], "other");
  EXPECT_TRUE(has_function(stalls[3], "compute_in_callback")) << stalls[3].dump();
}

TEST(Selectors, ARenamedThreadIsFoundByItsNewName) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("rename_thread", stalling({"--count", "3", "--gap-ms", "120"}));
  Trace trace({"--comm", "name-*"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 3u);
  // The name comes in the middle of the first stall: from its next poll on it is a target.
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  expect_exactly(stalls, {truth.begin() + 1, truth.end()});
  ASSERT_EQ(stalls.size(), 2u);
  EXPECT_EQ(stalls[0]["thread"]["name"], "name-2");
  EXPECT_EQ(stalls[1]["thread"]["name"], "name-3");
}

TEST(Selectors, ExeIsAGlobOverThePath) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", stalling()), other("epoll_cpu", stalling());
  Trace trace({"--exe", "*/victims/*_sleep"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  (void)other.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 2u);
  expect_exactly(ours(trace.stalls(), {&victim, &other}, truth), truth);
}

TEST(Selectors, CgroupIsItsProcessesAndThoseBelow) {
  LOOPTRACE_NEEDS_ROOT();
  const auto mounts = cgroup_hierarchies();
  if (mounts.empty()) GTEST_SKIP() << "no cgroup hierarchy is mounted";
  for (const std::string& mount : mounts) {
    SCOPED_TRACE(mount);
    const std::string name = "/looptrace-test-" + std::to_string(getpid());
    Cgroup inner(mount, name + "/inner");
    Victim before("epoll_sleep", stalling({"--delay-ms", "1200"})),
        later("epoll_sleep", stalling({"--delay-ms", "1200"})), other("epoll_sleep", stalling());
    ASSERT_TRUE(inner.join(before.pid()));
    Trace trace({"--cgroup", name});
    ASSERT_TRUE(trace.started());
    ASSERT_TRUE(inner.join(later.pid())) << "a process that is moved there is a target too";
    auto truth = before.truth();
    const auto of_later = later.truth();
    (void)other.truth();
    truth.insert(truth.end(), of_later.begin(), of_later.end());
    EXPECT_EQ(trace.stop(), 0);
    ASSERT_EQ(truth.size(), 4u);
    expect_exactly(trace.stalls(), truth);
  }
}

TEST(Selectors, ContainerIsKnownByItsCgroup) {
  LOOPTRACE_NEEDS_ROOT();
  const auto mounts = cgroup_hierarchies();
  if (mounts.empty()) GTEST_SKIP() << "no cgroup hierarchy is mounted";
  const std::string id = "5f3a9c" + std::string(58, 'e');
  Cgroup container(mounts.back(), "/docker/" + id);
  Victim victim("epoll_sleep", stalling()), other("epoll_sleep", stalling());
  ASSERT_TRUE(container.join(victim.pid()));
  Trace trace({"--container", "5f3a9ceee"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  (void)other.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_EQ(truth.size(), 2u);
  expect_exactly(trace.stalls(), truth);
  for (const json& s : trace.stalls()) EXPECT_EQ(s["container"]["id"], id);
}

TEST(Selectors, AllAndNoneAreEveryLoop) {
  LOOPTRACE_NEEDS_ROOT();
  for (const bool all : {true, false}) {
    // What else polls on this host has its files read before tracing starts.
    const auto later_on = stalling({"--delay-ms", "2500"});
    Victim a("epoll_sleep", later_on), b("poll_loop", later_on), c("epoll_cpu", later_on);
    Trace trace(all ? std::vector<std::string>{"--all"} : std::vector<std::string>{});
    ASSERT_TRUE(trace.started());
    Victim later("epoll_sleep", stalling({"--delay-ms", "300"}));
    for (Victim* v : {&a, &b, &c, &later}) {
      const auto truth = v->truth();
      ASSERT_EQ(truth.size(), 2u);
      usleep(100'000);
      expect_exactly(of_pid(trace.stalls(), v->pid()), truth);
    }
    EXPECT_EQ(trace.stop(), 0);
  }
}

TEST(Selectors, AReusedPidIsAnotherProcess) {
  LOOPTRACE_NEEDS_ROOT();
  auto first = std::make_unique<Victim>("epoll_sleep", stalling());
  const pid_t pid = first->pid();
  Trace by_pid({"--pid", std::to_string(pid)}), by_name({"--comm", "victim_epoll_*"});
  ASSERT_TRUE(by_pid.started() && by_name.started());
  const auto truth = first->truth();
  first.reset();
  std::unique_ptr<Victim> second;
  try {
    second = std::make_unique<Victim>(command_of(victim_path("epoll_cpu"), {"--delay-ms", "300"}),
                                      ProcessOptions{true, pid, {}});
  } catch (const std::runtime_error&) {
    GTEST_SKIP() << "pid " << pid << " cannot be had again";
  }
  ASSERT_EQ(second->pid(), pid);
  const auto of_second = second->truth();
  EXPECT_EQ(by_pid.stop(), 0);
  EXPECT_EQ(by_name.stop(), 0);
  ASSERT_EQ(truth.size(), 2u);
  ASSERT_EQ(of_second.size(), 2u);
  expect_exactly(by_pid.stalls(), truth);
  auto all = truth;
  all.insert(all.end(), of_second.begin(), of_second.end());
  const auto stalls = of_pid(by_name.stalls(), pid);
  expect_exactly(stalls, all);
  ASSERT_EQ(stalls.size(), 4u);
  EXPECT_NE(stalls[0]["process"]["start_time"], stalls[3]["process"]["start_time"]);
  EXPECT_EQ(stalls[3]["process"]["comm"], "victim_epoll_cp");
  EXPECT_TRUE(has_function(stalls[3], "compute_in_callback")) << stalls[3].dump();
}

/// Stalls of the only process that the selector finds, whose pid is another in its own namespace.
void expect_named_stacks(Trace& trace, const std::vector<json>& truth) {
  const auto stalls = trace.stalls();
  EXPECT_EQ(truth.size(), 2u);
  EXPECT_EQ(stalls.size(), 2u);
  for (const json& s : stalls) {
    expect_sum(s);
    EXPECT_TRUE(has_function(s, "sleep_in_callback")) << s.dump();
    EXPECT_EQ(s["culprit"].value("line", 0) > 0, true) << s.dump();
  }
}

TEST(Selectors, OtherNamespacesKeepTheirNames) {
  LOOPTRACE_NEEDS_ROOT();
  auto command = command_of(victim_path("epoll_sleep"));
  command.insert(command.begin(), {"/usr/bin/unshare", "-pfm", "--mount-proc"});
  Victim victim(command);
  ASSERT_TRUE(victim.ready());
  Trace trace({"--exe", victim_path("epoll_sleep")});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  ASSERT_FALSE(truth.empty());
  EXPECT_EQ(truth[0]["pid"], 1);
  expect_named_stacks(trace, truth);
}

TEST(Selectors, AChrootedProcessKeepsItsNames) {
  LOOPTRACE_NEEDS_ROOT();
  Directory root;
  const Outcome libraries = run({"/usr/bin/ldd", victim_path("epoll_sleep")});
  std::istringstream words(libraries.out);
  for (std::string word; words >> word;) {
    if (word[0] != '/') continue;
    fs::create_directories((root.path() + word).substr(0, (root.path() + word).rfind('/')));
    fs::copy_file(word, root.path() + word, fs::copy_options::overwrite_existing);
  }
  fs::copy_file(victim_path("epoll_sleep"), root.path() + "/inside");
  auto command = command_of("/inside");
  command.insert(command.begin(), {"/usr/sbin/chroot", root.path()});
  Victim victim(command);
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--comm", "inside"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  expect_named_stacks(trace, truth);
}

TEST(Selectors, ADeletedProgramKeepsItsNames) {
  LOOPTRACE_NEEDS_ROOT();
  Directory directory;
  const std::string program = directory.path() + "/replaced";
  fs::copy_file(victim_path("epoll_sleep"), program);
  Victim victim(command_of(program));
  ASSERT_TRUE(victim.ready());
  fs::remove(program);
  Trace trace({"--pid", std::to_string(victim.pid())});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  expect_named_stacks(trace, truth);
}

// Shells, pagers and editors poll, too, and "stall" for as long as a command runs.
TEST(Selectors, AClientOfOneConnectionOrTerminalIsNoLoop) {
  LOOPTRACE_NEEDS_ROOT();
  const std::vector<std::string> args{"--count", "60", "--stall-ms", "80", "--delay-ms", "5500"};
  Victim client("client_thread", args), shell("client_thread", [&] {
    auto with = args;
    with.insert(with.end(), {"--flavour", "terminal"});
    return with;
  }());
  Process list({LOOPTRACE_BINARY, "list", "-v", "--pid", std::to_string(client.pid()), "--pid",
                std::to_string(shell.pid()), "-f", "json"});
  EXPECT_EQ(list.wait(), 0) << list.errors();
  EXPECT_TRUE(list.lines().empty()) << list.lines().front();
  EXPECT_NE(list.errors().find("a synchronous client's"), std::string::npos) << list.errors();
  EXPECT_NE(list.errors().find("an interactive program's"), std::string::npos) << list.errors();
  // With no target named they are not reported either, once they have been looked at.
  Trace everything({});
  ASSERT_TRUE(everything.started());
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const auto count = [&](Victim& v) { return of_pid(everything.stalls(), v.pid()).size(); };
  const size_t before = count(client), before_shell = count(shell);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_EQ(everything.stop(), 0);
  EXPECT_EQ(count(client), before);
  EXPECT_EQ(count(shell), before_shell);
  EXPECT_LE(before, 20u) << "it computes 80 ms of each 120";
  EXPECT_LE(before_shell, 20u);
}

}  // namespace
}  // namespace looptrace::test
