// SPDX-License-Identifier: Apache-2.0
// Real servers that stall in the ways that real servers do, each alone under each hook mode and selector.
#include <unistd.h>

#include <cstdio>

#include "server.h"

namespace looptrace::test {
namespace {

struct Case {
  const char* server;
  const char* hook;
  const char* selector;  // --pid, --comm, --exe
  std::vector<std::string> args;
  double begin_after = 0;  // seconds of the trace
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.server << " " << c.selector << " --hook " << c.hook;
}

std::string value_of(const std::string& selector, const Server& server) {
  if (selector == "--comm") return server.info()["comm"];
  if (selector == "--pid") return std::to_string(server.pid());
  char target[4096];
  const auto n = readlink(("/proc/" + std::to_string(server.pid()) + "/exe").c_str(), target, sizeof target);
  return std::string(target, n > 0 ? static_cast<size_t>(n) : 0);
}

class Servers : public testing::TestWithParam<Case> {};

TEST_P(Servers, EachStallIsReportedOnceAndRight) {
  LOOPTRACE_NEEDS_ROOT();
  const Case& c = GetParam();
  std::vector<std::string> args = {"--count",  "2",  "--stall-ms", "150",
                                   "--gap-ms", "80", "--delay-ms", "20000"};
  args.insert(args.end(), c.args.begin(), c.args.end());
  Server server(c.server, args);
  if (server.not_installed()) GTEST_SKIP() << server.errors();
  ASSERT_TRUE(server.ready()) << server.errors();
  Trace trace({c.selector, value_of(c.selector, server), "--hook", c.hook, "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  const uint64_t from = monotonic_ns();
  if (server.loop_kind() == "epoll" && !server.info().contains("workers")) {
    EXPECT_GE(server.loop_fd(), 0);
  }
  server.begin(c.begin_after);
  const auto truth = server.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  EXPECT_FALSE(truth.empty());
  auto stalls = of_pid(trace.stalls(), server.pid());
  std::string title = std::string(c.server) + " " + c.selector + " " + c.hook;
  for (const auto& a : c.args) title += " " + a;
  expect_right(title, server, stalls, truth, from);
  EXPECT_EQ(stalls.size(), trace.stalls().size()) << "another process's stall";
}

const Case kCases[] = {
    {"tornado_psycopg2", "auto", "--pid", {}},
    {"tornado_psycopg2", "always", "--pid", {}},
    {"tornado_requests", "auto", "--pid", {}},
    {"tornado_requests", "always", "--comm", {}},
    {"asyncio_server", "auto", "--pid", {"--loop", "asyncio"}},
    {"asyncio_server", "always", "--pid", {"--loop", "asyncio"}},
    {"asyncio_server", "auto", "--pid", {"--loop", "uvloop"}},
    {"asyncio_server", "always", "--pid", {"--loop", "uvloop"}},
    {"aiohttp_server", "auto", "--pid", {}},
    {"aiohttp_server", "always", "--pid", {}},
    {"plain_loop_server", "auto", "--pid", {"--loop", "poll"}, 2},
    {"plain_loop_server", "always", "--pid", {"--loop", "poll"}, 2},
    {"plain_loop_server", "auto", "--pid", {"--loop", "select"}, 2},
    {"plain_loop_server", "always", "--pid", {"--loop", "select"}, 2},
    {"gil_server", "auto", "--pid", {}},
    {"gil_server", "always", "--pid", {}},
    {"redis_server", "auto", "--pid", {}},
    {"redis_server", "always", "--exe", {}},
    {"redis_server", "auto", "--pid", {"--load-clients", "200", "--pipeline", "32"}},
    {"redis_server", "auto", "--pid", {"--load-clients", "200", "--pipeline", "1"}},
    {"nginx_server", "auto", "--pid", {}},
    {"nginx_server", "always", "--exe", {}},
    {"node_server", "auto", "--pid", {}},
    {"node_server", "always", "--comm", {}},
    {"tokio_server", "auto", "--pid", {}},
    {"tokio_server", "always", "--comm", {}},
    {"netty_server", "auto", "--pid", {"--transport", "epoll"}, 2},
    {"netty_server", "always", "--pid", {"--transport", "nio", "--java", "25"}, 2},
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  std::string name = std::string(info.param.server) + "_" + info.param.hook + "_" + (info.param.selector + 2);
  for (const auto& a : info.param.args) {
    if (a[0] != '-') name += "_" + a;
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(E2e, Servers, testing::ValuesIn(kCases), name_of);

}  // namespace
}  // namespace looptrace::test
