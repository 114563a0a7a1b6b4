// SPDX-License-Identifier: Apache-2.0
// Where the time went, in the hard cases: against the victim's own account, down to who, what and where.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "harness.h"

namespace looptrace::test {
namespace {

constexpr uint64_t kMs = 1'000'000;

uint64_t part(const json& stall, const char* name) { return stall["time_ns"][name]; }

double near(uint64_t want) { return std::max(static_cast<double>(want) / 100, 2e6); }

/// Traces a victim with 80 ms stalls to its end. `meanwhile` runs while it is traced, before the first stall.
struct Traced {
  std::vector<json> stalls, truth;
  bool skipped = false;
};

Traced trace_victim(const std::string& name, std::vector<std::string> args,
                    const std::function<void(Victim&)>& meanwhile = {},
                    const std::function<void(Victim&)>& after = {}) {
  std::vector<std::string> all = {"--count",  "3",  "--stall-ms", "80",
                                  "--gap-ms", "40", "--delay-ms", "20000"};
  all.insert(all.end(), args.begin(), args.end());
  Victim victim(name, all);
  Traced t;
  if (!victim.ready()) {
    (void)victim.truth();
    t.skipped = victim.skipped();
    EXPECT_TRUE(t.skipped) << victim.process().errors();
    return t;
  }
  Trace trace({"--pid", std::to_string(victim.pid())});
  EXPECT_TRUE(trace.started());
  if (meanwhile) meanwhile(victim);
  victim.begin();
  t.truth = victim.truth();
  t.skipped = victim.skipped();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  t.stalls = of_pid(trace.stalls(), victim.pid());
  for (const json& s : t.stalls) expect_sum(s);
  if (t.stalls.size() != t.truth.size()) printf("%s\n", trace.summary().value_or(json()).dump().c_str());
  if (after) after(victim);
  return t;
}

/// The longest wait of each stall has this target, field by field.
void expect_target(const Traced& t, const json& want) {
  ASSERT_FALSE(t.stalls.empty());
  for (const json& s : t.stalls) {
    ASSERT_TRUE(s.contains("waits")) << s.dump();
    const json target = s["waits"][0].value("target", json::object());
    for (const auto& [key, value] : want.items())
      EXPECT_EQ(target.value(key, json()), value) << key << " in " << s.dump();
  }
}

TEST(Breakdown, RunqueueTimeIsToldApartAndNamesWhoRanInstead) {
  LOOPTRACE_NEEDS_ROOT();
  const Traced t = trace_victim("runqueue_hog", {"--stall-ms", "200"});
  ASSERT_EQ(t.stalls.size(), t.truth.size());
  size_t by_hog = 0;
  for (size_t i = 0; i < t.stalls.size(); ++i) {
    const uint64_t waited = t.truth[i]["runq_ns"];
    EXPECT_NEAR(static_cast<double>(part(t.stalls[i], "runqueue")), static_cast<double>(waited),
                near(waited));
    EXPECT_NEAR(static_cast<double>(part(t.stalls[i], "on_cpu")), t.truth[i]["cpu_ns"].get<double>(), 2e6);
    EXPECT_EQ(t.stalls[i]["cause"]["kind"], "runqueue") << t.stalls[i].dump();
    if (t.stalls[i].contains("preempted_by") && t.stalls[i]["preempted_by"]["comm"] == "hog") ++by_hog;
  }
  EXPECT_GE(by_hog, 1u) << "others may run too, but not always";
}

/// A cgroup of one controller with its limits set, v1 or v2, removed at the end.
class Group {
 public:
  using Settings = std::vector<std::pair<std::string, std::string>>;

  Group(const std::string& controller, const Settings& v1, const Settings& v2) {
    const std::string name = "/looptrace-test-" + controller + std::to_string(getpid());
    const bool old = std::filesystem::exists("/sys/fs/cgroup/" + controller + "/cgroup.procs");
    if (!old) put_at("/sys/fs/cgroup/cgroup.subtree_control", "+" + controller);
    path_ = "/sys/fs/cgroup" + (old ? "/" + controller : "") + name;
    ok_ = mkdir(path_.c_str(), 0755) == 0;
    for (const auto& [file, text] : old ? v1 : v2) ok_ = ok_ && put(file, text);
  }
  ~Group() { rmdir(path_.c_str()); }
  bool ok() const { return ok_; }
  bool join(pid_t pid) { return put("cgroup.procs", std::to_string(pid)); }

 private:
  static bool put_at(const std::string& path, const std::string& text) {
    std::ofstream file(path);
    file << text << std::flush;
    return file.good();
  }
  bool put(const std::string& name, const std::string& text) { return put_at(path_ + "/" + name, text); }
  std::string path_;
  bool ok_ = false;
};

TEST(Breakdown, ThrottlingIsNotTheCodesFault) {
  LOOPTRACE_NEEDS_ROOT();
  Group quota("cpu", {{"cpu.cfs_period_us", "100000"}, {"cpu.cfs_quota_us", "20000"}},
              {{"cpu.max", "20000 100000"}});
  if (!quota.ok()) GTEST_SKIP() << "no cgroup with a CPU quota can be made here";
  const Traced t =
      trace_victim("epoll_cpu", {"--stall-ms", "350"}, [&](Victim& v) { ASSERT_TRUE(quota.join(v.pid())); });
  ASSERT_EQ(t.stalls.size(), t.truth.size());
  for (size_t i = 0; i < t.stalls.size(); ++i) {
    const json &s = t.stalls[i], &truth = t.truth[i];
    EXPECT_EQ(s["cause"]["kind"], "throttled") << s.dump();
    EXPECT_NEAR(static_cast<double>(part(s, "on_cpu")), truth["cpu_ns"].get<double>(), 2e6) << s.dump();
    EXPECT_NEAR(s["duration_ns"].get<double>(),
                truth["end_ns"].get<double>() - truth["start_ns"].get<double>(), 1e7);
    EXPECT_GT(part(s, "runqueue"), part(s, "blocked")) << s.dump();
  }
}

TEST(Breakdown, MemoryReclaimIsToldFromTheProgramsOwnWaits) {
  LOOPTRACE_NEEDS_ROOT();
  Group memory("memory", {{"memory.limit_in_bytes", "16M"}}, {{"memory.max", "16M"}});
  if (!memory.ok()) GTEST_SKIP() << "no cgroup with a memory limit can be made here";
  const Traced t = trace_victim("reclaim", {"--stall-ms", "300", "--dir", "/var/tmp"},
                                [&](Victim& v) { ASSERT_TRUE(memory.join(v.pid())); });
  if (t.skipped) GTEST_SKIP() << "the victim cannot run here";
  ASSERT_EQ(t.stalls.size(), t.truth.size());
  // Much of it runs on the CPU; whatever it waits for is reclaim, though the thread waits in no system call.
  uint64_t reclaim = 0, others = 0;
  for (const json& s : t.stalls) {
    for (const json& w : s.value("waits", json::array())) {
      (w["cause"] == "page_fault" ? reclaim : others) += w["duration_ns"].get<uint64_t>();
    }
  }
  EXPECT_GT(reclaim, 0u) << t.stalls.front().dump();
  EXPECT_LT(others, reclaim / 10) << t.stalls.front().dump();
}

TEST(Breakdown, AStopByItselfIsStopped) {
  LOOPTRACE_NEEDS_ROOT();
  const Traced t = trace_victim("stopped", {"--flavour", "self"});
  ASSERT_EQ(t.stalls.size(), t.truth.size());
  expect_exactly(t.stalls, t.truth, kMs);
  for (const json& s : t.stalls) EXPECT_EQ(s["cause"]["kind"], "stopped") << s.dump();
}

TEST(Breakdown, AStopByOthersIsStopped) {
  LOOPTRACE_NEEDS_ROOT();
  std::vector<uint64_t> lasted;
  const Traced t = trace_victim("stopped", {"--delay-ms", "1500"}, [&](Victim& v) {
    for (int i = 0; i < 3; ++i) {
      usleep(60'000);
      const uint64_t from = monotonic_ns();
      v.process().signal(SIGSTOP);
      usleep(120'000);
      v.process().signal(SIGCONT);
      lasted.push_back(monotonic_ns() - from);
    }
  });
  ASSERT_EQ(t.stalls.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(t.stalls[i]["cause"]["kind"], "stopped") << t.stalls[i].dump();
    EXPECT_NEAR(static_cast<double>(part(t.stalls[i], "blocked")), static_cast<double>(lasted[i]), 15e6)
        << t.stalls[i].dump();
  }
}

TEST(Breakdown, AStopInThePollIsAStall) {
  LOOPTRACE_NEEDS_ROOT();
  uint64_t lasted = 0;
  const Traced t = trace_victim("epoll_sleep", {"--count", "0", "--delay-ms", "1100"}, [&](Victim& v) {
    usleep(100'000);
    const uint64_t from = monotonic_ns();
    v.process().signal(SIGSTOP);  // it sleeps in its poll 99 % of the time
    usleep(150'000);
    v.process().signal(SIGCONT);
    lasted = monotonic_ns() - from;
  });
  ASSERT_EQ(t.stalls.size(), 1u);
  EXPECT_EQ(t.stalls[0]["cause"]["kind"], "stopped");
  EXPECT_NEAR(static_cast<double>(part(t.stalls[0], "blocked")), static_cast<double>(lasted), 15e6);
}

TEST(Breakdown, APageFaultIsCertain) {
  LOOPTRACE_NEEDS_ROOT();
  const Traced t = trace_victim("page_fault", {"--flavour", "uffd"});
  if (t.skipped) GTEST_SKIP() << "userfaultfd is refused here";
  expect_exactly(t.stalls, t.truth);
  for (const json& s : t.stalls) {
    EXPECT_EQ(s["cause"]["kind"], "page_fault") << s.dump();
    EXPECT_EQ(s["culprit"]["function"], "touch_one_page") << s.dump();
  }
}

TEST(Breakdown, FaultsOnAColdFileAreAccountedFor) {
  LOOPTRACE_NEEDS_ROOT();
  const Traced t = trace_victim("page_fault", {"--stall-ms", "100"});
  ASSERT_EQ(t.stalls.size(), t.truth.size());
  for (const json& s : t.stalls) {  // how much of it blocks is up to the disk
    const std::string cause = s["cause"]["kind"];
    EXPECT_TRUE(cause == "page_fault" || cause == "cpu" || cause == "file" || cause == "runqueue")
        << s.dump();
  }
}

TEST(Breakdown, ALockNamesItsFutexAndItsHolder) {
  LOOPTRACE_NEEDS_ROOT();
  pid_t holder = 0;
  json mutex;
  const Traced t = trace_victim(
      "lock_wait", {},
      [&](Victim& v) {
        const auto found = threads_named(v.pid(), "holder");
        ASSERT_EQ(found.size(), 1u);
        holder = found[0];
      },
      [&](Victim& v) { mutex = v.said("mutex")["mutex"]; });
  expect_exactly(t.stalls, t.truth, kMs);
  expect_target(t, {{"kind", "futex"}, {"address", mutex}});
  for (const json& s : t.stalls) {
    EXPECT_EQ(s["cause"]["kind"], "lock");
    const json by = s["waits"][0].value("woken_by", json::object());
    EXPECT_EQ(by.value("tid", 0), holder) << s.dump();
    EXPECT_EQ(by.value("comm", ""), "holder") << s.dump();
  }
}

TEST(Breakdown, AChildIsNamedByItsPid) {
  LOOPTRACE_NEEDS_ROOT();
  json child;
  const Traced t =
      trace_victim("child_wait", {"--count", "1"}, {}, [&](Victim& v) { child = v.said("child")["child"]; });
  ASSERT_EQ(t.stalls.size(), 1u);
  expect_target(t, {{"kind", "process"}, {"pid", child}});
  EXPECT_EQ(t.stalls[0]["cause"]["kind"], "child");
  EXPECT_EQ(t.stalls[0]["waits"][0].value("woken_by", json::object()).value("pid", 0), child.get<int>())
      << t.stalls[0].dump();
}

TEST(Breakdown, APipeIsNamedByItsDescriptor) {
  LOOPTRACE_NEEDS_ROOT();
  std::map<int, std::string> links;
  const Traced t = trace_victim("pipe_full", {}, [&](Victim& v) {
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(v.pid()) + "/fd")) {
      std::error_code gone;
      links[std::stoi(entry.path().filename())] = std::filesystem::read_symlink(entry.path(), gone);
    }
  });
  expect_exactly(t.stalls, t.truth, kMs);
  for (const json& s : t.stalls) {
    EXPECT_EQ(s["cause"]["kind"], "pipe");
    const json& target = s["waits"][0]["target"];
    EXPECT_EQ(target["kind"], "pipe");
    const std::string link = links[target["fd"].get<int>()];
    EXPECT_TRUE(link.starts_with("pipe:[")) << target.dump();
    EXPECT_EQ(target.value("path", link), link);
    EXPECT_EQ(s["waits"][0]["woken_by"]["comm"], "drainer") << s.dump();
  }
}

class Network : public testing::TestWithParam<std::string> {};

TEST_P(Network, ConnectionsAreNamedByTheirAddresses) {
  LOOPTRACE_NEEDS_ROOT();
  json ends;
  const std::string flavour = GetParam();
  const Traced t = trace_victim("tcp_client_wait", {"--flavour", flavour, "--count", "2"}, {},
                                [&](Victim& v) { ends = v.said("client"); });
  expect_exactly(t.stalls, t.truth, kMs);
  for (const json& s : t.stalls) {
    EXPECT_EQ(s["cause"]["kind"], "network");
    EXPECT_EQ(s["waits"][0]["woken_by"]["comm"], "server") << s.dump();
  }
  if (flavour == "unix") {
    expect_target(t, {{"kind", "unix"}});
  } else {
    expect_target(
        t, {{"kind", flavour == "udp" ? "udp" : "tcp"}, {"local", ends["client"]}, {"peer", ends["server"]}});
  }
}

INSTANTIATE_TEST_SUITE_P(Flavours, Network, testing::Values("tcp", "tcp6", "udp", "unix"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace looptrace::test
