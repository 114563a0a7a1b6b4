// SPDX-License-Identifier: Apache-2.0
// `looptrace agent` and configurations that are right and yet do not work: it goes on with the old one.
#include <signal.h>
#include <sys/resource.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "agent_parts.h"

namespace looptrace::test {
namespace {

/// What a service tells systemd.
class Notified {
 public:
  Notified() : path_(directory_.path() + "/notify"), fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    std::memcpy(at.sun_path, path_.data(), path_.size());
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    setenv("NOTIFY_SOCKET", path_.c_str(), 1);
  }
  ~Notified() {
    unsetenv("NOTIFY_SOCKET");
    close(fd_);
  }
  /// All of it until now.
  const std::string& heard() {
    char text[512];
    ssize_t n;
    while ((n = recv(fd_, text, sizeof text, MSG_DONTWAIT)) > 0) heard_.append(text, static_cast<size_t>(n));
    return heard_;
  }
  /// Waits for a message with this in it that has not been waited for.
  bool wait(const std::string& part, double seconds) {
    return wait_until(
        [&] {
          const size_t at = heard().find(part, waited_);
          if (at == std::string::npos) return false;
          waited_ = at + part.size();
          return true;
        },
        seconds);
  }

 private:
  Directory directory_;
  std::string path_;
  int fd_;
  std::string heard_;
  size_t waited_ = 0;
};

std::vector<std::string> failures(Trace& agent) {
  std::vector<std::string> messages;
  for (const json& w : agent.records("looptrace.warning/1")) {
    if (w["code"] == "reload_failed") messages.push_back(w["message"]);
  }
  return messages;
}

uint64_t seen_in_windows(Trace& agent) {
  uint64_t seen = 0;
  for (const json& w : agent.records("looptrace.window/1")) seen += w["seen"].get<uint64_t>();
  return seen;
}

void limit_descriptors(pid_t pid, rlim_t most) {
  rlimit limit{};
  ASSERT_EQ(prlimit(pid, RLIMIT_NOFILE, nullptr, &limit), 0);
  limit.rlim_cur = most;
  ASSERT_EQ(prlimit(pid, RLIMIT_NOFILE, &limit, nullptr), 0);
}

// Tried beside the trace that goes on: that one loses nothing, not even while its successor is tried.
TEST(AgentReload, OneThatCannotBeTracedLosesNothing) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "70", "--stall-ms", "60", "--gap-ms", "40", "--delay-ms", "2500"});
  ASSERT_TRUE(victim.ready());
  const std::string rest = "[sampling]\nwindow = 1s\nper_fingerprint = 200\n[budget]\ncpu = 100%\n";
  const std::string metrics = "127.0.0.1:" + std::to_string(free_port());
  Config config(for_victim(rest, metrics));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  usleep(3'000'000);

  // Its port is taken.
  const Port taken;
  ASSERT_TRUE(taken.held());
  config.write(for_victim(rest, taken.text()));
  agent.process().signal(SIGHUP);
  EXPECT_TRUE(wait_until([&] { return failures(agent).size() == 1; }, 10));
  // Its programs cannot be loaded: there is no descriptor left for them.
  config.write(for_victim(rest + "[trace]\nthreshold = 40ms\n", metrics));
  limit_descriptors(agent.process().pid(), 40);
  agent.process().signal(SIGHUP);
  EXPECT_TRUE(wait_until([&] { return failures(agent).size() == 2; }, 10));
  limit_descriptors(agent.process().pid(), 1024);
  const std::string page = http_get(static_cast<uint16_t>(std::stoi(metrics.substr(10))), "/metrics");

  const auto truth = victim.truth();
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
  ASSERT_EQ(failures(agent).size(), 2u);
  EXPECT_NE(failures(agent)[0].find(taken.text()), std::string::npos) << failures(agent)[0];
  EXPECT_NE(failures(agent)[1].find("Too many open files"), std::string::npos) << failures(agent)[1];
  for (const std::string& message : failures(agent)) {
    EXPECT_TRUE(message.ends_with("; going on as before")) << message;
    EXPECT_NE(agent.process().errors().find("looptrace: " + message), std::string::npos)
        << agent.process().errors();
  }
  EXPECT_NE(page.find("looptrace_agent_config_reloads_total{result=\"failure\"} 2"), std::string::npos);
  EXPECT_EQ(agent.records("looptrace.start/1").size(), 1u);
  EXPECT_EQ(truth.size(), 70u);
  EXPECT_EQ(seen_in_windows(agent), truth.size());
  expect_exactly(agent.stalls(), truth, 3 * kMs);
}

// What was free when it was tried is taken when its turn comes: back to the one before.
TEST(AgentReload, OneThatFailsInItsTurnMakesWayForTheOneBefore) {
  LOOPTRACE_NEEDS_ROOT();
  Notified systemd;
  Victim victim("epoll_sleep", {"--count", "60", "--stall-ms", "60", "--gap-ms", "140", "--delay-ms", "500"});
  ASSERT_TRUE(victim.ready());
  const std::string rest = "[sampling]\nwindow = 4s\n[budget]\ncpu = 100%\n";
  Config config(for_victim(rest));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  ASSERT_TRUE(systemd.wait("READY=1", 10));
  // Soon after a window has begun, so that it is long enough to try in.
  ASSERT_TRUE(agent.process().wait_line("{\"schema\":\"looptrace.window/1\"", 10));
  const uint16_t port = free_port();
  // It would write elsewhere, too: that comes to nothing with the rest.
  const Directory elsewhere;
  config.write(for_victim(rest + "[output]\nfile = " + elsewhere.path() + "/records\n",
                          "127.0.0.1:" + std::to_string(port)));
  agent.process().signal(SIGHUP);
  ASSERT_TRUE(systemd.wait("configuration read", 10));
  const Port taken(port);
  ASSERT_TRUE(taken.held());
  EXPECT_TRUE(wait_until([&] { return !failures(agent).empty(); }, 15)) << agent.process().errors();
  (void)victim.truth();
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();

  ASSERT_EQ(failures(agent).size(), 1u);
  EXPECT_NE(failures(agent)[0].find(taken.text()), std::string::npos) << failures(agent)[0];
  EXPECT_NE(agent.process().errors().find("going on as before"), std::string::npos);
  EXPECT_EQ(agent.records("looptrace.start/1").size(), 2u) << "the old configuration, twice";
  // It traces again, and every stall that a window has seen has its record.
  const auto windows = agent.records("looptrace.window/1");
  const std::string again = agent.records("looptrace.start/1")[1]["time"];
  uint64_t kept = 0, seen_again = 0;
  for (const json& w : windows) {
    kept += w["kept"].get<uint64_t>();
    if (w["time"].get<std::string>() > again) seen_again += w["seen"].get<uint64_t>();
  }
  EXPECT_GT(seen_again, 0u);
  EXPECT_EQ(agent.stalls().size(), kept);
}

// Lines wait for a reader, not for the trace that they are of.
TEST(AgentReload, WhatIsQueuedForASlowReaderSurvivesARestart) {
  LOOPTRACE_NEEDS_ROOT();
  Notified systemd;
  const std::string rest =
      "[sampling]\nwindow = 1s\nper_fingerprint = 200\n[budget]\ncpu = 100%\n[trace]\nthreshold = ";
  Config config(for_victim(rest + "50ms\n"));
  Trace agent({"agent", "--config", config.path()}, ProcessOptions{false, 0, ""});
  ASSERT_TRUE(systemd.wait("STATUS=tracing in windows", 10));
  Victim victim("epoll_sleep", {"--threads", "6", "--count", "14", "--stall-ms", "60", "--gap-ms", "40",
                                "--delay-ms", "1200"});
  const auto truth = victim.truth();
  ASSERT_EQ(truth.size(), 84u);
  config.write(for_victim(rest + "40ms\n"));
  agent.process().signal(SIGHUP);
  ASSERT_TRUE(systemd.wait("STATUS=configuration read", 5));
  ASSERT_TRUE(systemd.wait("STATUS=tracing in windows", 10));
  agent.process().read_output();
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();

  // More than a pipe holds was written by the first trace, or nothing was queued over the restart.
  ASSERT_EQ(agent.records("looptrace.start/1").size(), 2u);
  size_t before = 0;
  for (const std::string& line : agent.process().lines()) {
    if (before > 0 && line.starts_with("{\"schema\":\"looptrace.start/1\"")) break;
    before += line.size() + 1;
  }
  std::printf("%zu bytes were written before the restart\n", before);
  EXPECT_GT(before, 80u << 10);
  EXPECT_EQ(agent.process().errors().find("lost"), std::string::npos) << agent.process().errors();
  expect_exactly(of_pid(agent.stalls(), victim.pid()), truth, 3 * kMs);
}

// Between two traces, too. A restart is no end: systemd would kill after its time-out what called itself
// stopping.
TEST(AgentReload, AWordToEndIsHeardDuringARestart) {
  LOOPTRACE_NEEDS_ROOT();
  Notified systemd;
  Config config(for_victim("[sampling]\nwindow = 1s\n"));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  for (int i = 0; i < 3; ++i) {
    const std::string threshold = std::to_string(40 + i);
    config.write(for_victim("[sampling]\nwindow = 1s\n[trace]\nthreshold = " + threshold + "ms\n"));
    const size_t before = agent.records("looptrace.start/1").size();
    agent.process().signal(SIGHUP);
    EXPECT_TRUE(wait_until([&] { return agent.records("looptrace.start/1").size() > before; }, 10));
    EXPECT_TRUE(systemd.wait("STATUS=configuration read", 5));
    EXPECT_TRUE(systemd.wait("STATUS=tracing in windows", 5));
  }
  EXPECT_EQ(systemd.heard().find("STOPPING=1"), std::string::npos);
  agent.process().signal(SIGHUP);  // nothing has changed
  agent.process().signal(SIGTERM);
  EXPECT_EQ(agent.wait(10), 0) << agent.process().errors();
  EXPECT_EQ(agent.records("looptrace.start/1").size(), 4u);
  EXPECT_NE(systemd.heard().find("STOPPING=1"), std::string::npos);
}

}  // namespace
}  // namespace looptrace::test
