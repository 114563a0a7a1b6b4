// SPDX-License-Identifier: Apache-2.0
// Situations that mislead tracers: attached in the middle of a stall, workers that come later, no stall at
// all, everything at once, and what `list` calls a loop.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "server.h"

namespace looptrace::test {
namespace {

using Servers = std::vector<std::unique_ptr<Server>>;

/// Those of `names` that are installed, all started.
Servers start_all(const std::vector<std::string>& names, const std::vector<std::string>& args) {
  Servers servers;
  for (const std::string& name : names) {
    auto server = std::make_unique<Server>(name, args);
    if (server->not_installed()) {
      std::printf("without %s: %s", name.c_str(), server->errors().c_str());
      continue;
    }
    EXPECT_TRUE(server->ready()) << server->errors();
    if (server->ready()) servers.push_back(std::move(server));
  }
  return servers;
}

struct MidStall {
  const char* server;
  long system_call;  // that the stall waits in
  const char* hook;
};

void PrintTo(const MidStall& c, std::ostream* out) { *out << c.server << " --hook " << c.hook; }

class AttachedInTheMiddle : public testing::TestWithParam<MidStall> {};

TEST_P(AttachedInTheMiddle, NothingIsInventedAndTheNextAreRight) {
  LOOPTRACE_NEEDS_ROOT();
  const MidStall& c = GetParam();
  Server server(c.server, {"--count", "2", "--stall-ms", "900", "--gap-ms", "300", "--delay-ms", "200"});
  if (server.not_installed()) GTEST_SKIP() << server.errors();
  ASSERT_TRUE(server.ready()) << server.errors();
  const int loop_fd = server.loop_fd();
  ASSERT_GE(loop_fd, 0);
  ASSERT_TRUE(server.wait_until_in(c.system_call, loop_fd, 15));
  Trace trace({"--pid", std::to_string(server.pid()), "--hook", c.hook, "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  const uint64_t from = monotonic_ns();
  EXPECT_NE(server.system_call().second, loop_fd) << "attached too late for the stall";
  const auto truth = server.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  for (const json& open : trace.stalls("open")) {
    EXPECT_EQ(open["loop"].value("fd", -1), loop_fd) << open.dump();
  }
  expect_right(std::string("attached in a stall of ") + c.server + " " + c.hook, server,
               of_pid(trace.stalls(), server.pid()), truth, from);
}

const MidStall kMidStalls[] = {
    {"tornado_psycopg2", SYS_poll, "auto"},
    {"tornado_psycopg2", SYS_poll, "always"},
    {"node_server", SYS_epoll_pwait, "auto"},
    {"node_server", SYS_epoll_pwait, "always"},
};

INSTANTIATE_TEST_SUITE_P(E2e, AttachedInTheMiddle, testing::ValuesIn(kMidStalls), [](const auto& info) {
  return std::string(info.param.server) + "_" + info.param.hook;
});

TEST(Situations, WorkersThatAreForkedAndExecutedLaterAreFoundByTheirName) {
  LOOPTRACE_NEEDS_ROOT();
  Server parent("tornado_workers", {"--count", "2", "--gap-ms", "400", "--delay-ms", "20000"});
  if (parent.not_installed()) GTEST_SKIP() << parent.errors();
  ASSERT_TRUE(parent.ready()) << parent.errors();
  Trace trace({"--comm", "tornado-w*", "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  const uint64_t from = monotonic_ns();
  parent.begin();
  const auto truth = parent.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  EXPECT_EQ(truth.size(), 4u);
  expect_right("workers by --comm", parent, trace.stalls(), truth, from);
}

TEST(Situations, HealthyServersUnderLoadHaveNoStalls) {
  LOOPTRACE_NEEDS_ROOT();
  std::vector<std::string> names = {"tornado_psycopg2", "asyncio_server", "aiohttp_server",
                                    "redis_server",     "nginx_server",   "node_server"};
  const Servers servers =
      start_all(names, {"--count", "0", "--clients", "2", "--delay-ms", "5000", "--gap-ms", "0"});
  if (servers.empty()) GTEST_SKIP() << "no server is installed";
  std::vector<std::string> args = {"--threshold", "100ms", "--duration", "5s"};
  for (const auto& server : servers) args.insert(args.end(), {"--pid", std::to_string(server->pid())});
  Trace trace(args);
  ASSERT_TRUE(trace.started());
  EXPECT_EQ(trace.wait(), 0) << trace.process().errors();
  for (const auto& server : servers) EXPECT_TRUE(server->truth().empty());
  for (const char* state : {"open", "closed"}) {
    for (const json& s : trace.stalls(state)) {
      // That the machine was busy with other things is true and no server's fault.
      if (s["cause"]["kind"] != "runqueue") ADD_FAILURE() << "invented: " << s.dump();
    }
  }
  keep_row({"healthy load", 0, trace.stalls().size(), 0, 0, 0});
}

TEST(Situations, SeveralServersAtOnceWithoutASelector) {
  LOOPTRACE_NEEDS_ROOT();
  const Servers servers = start_all({"tornado_psycopg2", "aiohttp_server", "redis_server", "node_server"},
                                    {"--count", "2", "--gap-ms", "150", "--delay-ms", "30000"});
  if (servers.empty()) GTEST_SKIP() << "no server is installed";
  Trace trace({"--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  const uint64_t from = monotonic_ns();
  for (const auto& server : servers) server->loop_fd();
  // The tables of a whole host's processes are read first.
  std::this_thread::sleep_for(std::chrono::seconds(4));
  for (const auto& server : servers) server->begin();
  std::vector<std::vector<json>> truths;
  for (const auto& server : servers) truths.push_back(server->truth());
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const auto stalls = trace.stalls();
  for (size_t i = 0; i < servers.size(); ++i) {
    expect_right("all at once: " + servers[i]->name(), *servers[i], of_pid(stalls, servers[i]->pid()),
                 truths[i], from);
  }
}

TEST(Situations, ListNamesTheLoopsAndNotThePools) {
  LOOPTRACE_NEEDS_ROOT();
  const Servers servers =
      start_all({"tornado_psycopg2", "asyncio_server", "redis_server", "nginx_server", "node_server"},
                {"--count", "0", "--delay-ms", "7000"});
  if (servers.empty()) GTEST_SKIP() << "no server is installed";
  for (const auto& server : servers) EXPECT_GE(server->loop_fd(), 0);
  Trace list({"list"});
  EXPECT_EQ(list.wait(), 0) << list.process().errors();
  const auto loops = list.records("looptrace.loop_info/1");
  for (const auto& server : servers) {
    std::set<int> threads;
    for (const json& l : loops) {
      if (l["process"]["pid"] != server->pid()) continue;
      const int tid = l["thread"]["id"];
      threads.insert(tid);
      std::printf("  %s[%d] %s %s fd %d, %.0f/s, %.1f %%\n", server->name().c_str(), tid,
                  l["process"].value("runtime", "-").c_str(), l["loop"]["kind"].get<std::string>().c_str(),
                  l["loop"].value("fd", -1), l["iterations_per_second"].get<double>(),
                  l["utilization"].get<double>() * 100);
      EXPECT_EQ(l["loop"]["kind"], "epoll") << l.dump();
      if (tid != server->pid()) continue;
      EXPECT_EQ(l["loop"].value("fd", -1), server->loop_fd()) << l.dump();
      EXPECT_GT(l["iterations_per_second"], 1.0) << l.dump();
      EXPECT_LT(l["utilization"], 1.0) << l.dump();
      const bool python = server->name().find("tornado") == 0 || server->name().find("asyncio") == 0;
      if (python) {
        EXPECT_TRUE(l["process"].value("runtime", "").starts_with("cpython 3.")) << l.dump();
      }
      if (server->name() == "node_server") {
        EXPECT_TRUE(l["process"].value("runtime", "").starts_with("node ")) << l.dump();
      }
    }
    EXPECT_TRUE(threads.contains(server->pid())) << server->name();
    // Node has a second uv loop of its own for delayed tasks; the rest of its eleven threads wait in pools.
    EXPECT_LE(threads.size(), server->name() == "node_server" ? 2u : 1u) << server->name();
  }
  for (const auto& server : servers) server->truth();
}

/// What `list` says of one process: kind of poll by thread.
std::map<int, std::string> listed_loops(pid_t pid) {
  Trace list({"list", "--pid", std::to_string(pid)});
  EXPECT_EQ(list.wait(), 0) << list.process().errors();
  std::map<int, std::string> loops;
  for (const json& l : list.records("looptrace.loop_info/1")) loops[l["thread"]["id"]] = l["loop"]["kind"];
  return loops;
}

// One of tokio's workers polls, the others wait for their turn in a futex; whichever serves a request may
// stall.
TEST(Situations, WorkersThatNeverPolledAreLoops) {
  LOOPTRACE_NEEDS_ROOT();
  Server server("tokio_server", {"--workers", "6", "--count", "0", "--delay-ms", "4000"});
  if (server.not_installed()) GTEST_SKIP() << server.errors();
  ASSERT_TRUE(server.ready()) << server.errors();
  const auto loops = listed_loops(server.pid());
  EXPECT_EQ(loops.size(), 6u);
  EXPECT_FALSE(loops.contains(server.pid())) << "it waits for the runtime to end, and polls nothing";
  for (const auto& [thread, kind] : loops) EXPECT_EQ(kind, "epoll") << thread;
  server.truth();
}

TEST(Situations, ListFindsEveryThreadOfHAProxy) {
  LOOPTRACE_NEEDS_ROOT();
  if (access("/usr/sbin/haproxy", X_OK) != 0) GTEST_SKIP() << "haproxy is not installed";
  Directory directory;
  const std::string config = directory.path() + "/haproxy.cfg";
  std::ofstream(config)
      << "global\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n"
      << "  timeout server 5s\nfrontend f\n  bind unix@" << directory.path()
      << "/socket\n  http-request return status 200\n";
  Process haproxy({"/usr/sbin/haproxy", "-db", "-f", config});
  std::this_thread::sleep_for(std::chrono::seconds(1));
  ASSERT_FALSE(haproxy.ended()) << haproxy.errors();
  const auto loops = listed_loops(haproxy.pid());
  EXPECT_EQ(loops.size(), 2u);
  for (const auto& [tid, kind] : loops) EXPECT_EQ(kind, "epoll") << tid;
}

TEST(Situations, ListFindsLibeventsLoopsInMemcached) {
  LOOPTRACE_NEEDS_ROOT();
  if (access("/usr/bin/memcached", X_OK) != 0) GTEST_SKIP() << "memcached is not installed";
  Directory directory;
  Process memcached({"/usr/bin/memcached", "-u", "root", "-t", "3", "-s", directory.path() + "/socket"});
  std::this_thread::sleep_for(std::chrono::seconds(1));
  ASSERT_FALSE(memcached.ended()) << memcached.errors();
  const auto loops = listed_loops(memcached.pid());
  EXPECT_EQ(loops.size(), 4u)
      << "one that accepts, three that serve; the others keep time and wait for locks";
  for (const auto& [tid, kind] : loops) EXPECT_EQ(kind, "epoll") << tid;
}

TEST(Situations, ListSaysWithVWhyAThreadIsNoLoop) {
  LOOPTRACE_NEEDS_ROOT();
  // Waits in poll(2) for its one descriptor, once: what clients do.
  Process client({"/usr/bin/python3", "-c",
                  "import select, os; p = select.poll(); p.register(os.pipe()[0]); print('ready', "
                  "flush=True); p.poll()"});
  ASSERT_TRUE(client.wait_line("ready"));
  Process list({LOOPTRACE_BINARY, "list", "-v", "--pid", std::to_string(client.pid()), "-f", "json"});
  EXPECT_EQ(list.wait(), 0) << list.errors();
  EXPECT_TRUE(list.lines().empty());
  EXPECT_NE(list.errors().find("not a loop: python3[" + std::to_string(client.pid()) + "]"),
            std::string::npos)
      << list.errors();
}

}  // namespace
}  // namespace looptrace::test
