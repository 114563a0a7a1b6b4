// SPDX-License-Identifier: Apache-2.0
// Metrics of a real run: over HTTP while it lasts, in the textfile after it. They agree with the records to
// the nanosecond, and with the victim's own count.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "harness.h"

namespace looptrace::test {
namespace {

// Waits until standard error tells where metrics are served.
uint16_t port_of(Process& process) {
  for (int i = 0; i < 200; ++i) {
    const std::string errors = process.errors();
    const size_t at = errors.find("metrics on http://127.0.0.1:");
    if (at != std::string::npos) return static_cast<uint16_t>(std::stoi(errors.substr(at + 28)));
    usleep(50'000);
  }
  return 0;
}

std::map<std::string, std::string> samples(const std::string& text) {
  std::map<std::string, std::string> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.find("} ");
    if (!line.starts_with('#') && space != std::string::npos)
      found[line.substr(0, space + 1)] = line.substr(space + 2);
  }
  return found;
}

std::string seconds(uint64_t ns) {
  char text[40];
  std::snprintf(text, sizeof text, "%llu.%09llu", static_cast<unsigned long long>(ns / 1'000'000'000),
                static_cast<unsigned long long>(ns % 1'000'000'000));
  std::string trimmed = text;
  while (trimmed.back() == '0') trimmed.pop_back();
  return trimmed;
}

TEST(Metrics, AgreeWithTheRecordsAndTheVictim) {
  LOOPTRACE_NEEDS_ROOT();
  Directory directory;
  const std::string textfile = directory.path() + "/looptrace.prom";
  Victim victim("epoll_sleep", {"--count", "10", "--stall-ms", "80", "--gap-ms", "60", "--delay-ms", "3000"});
  ASSERT_TRUE(victim.ready());
  Trace trace({"--pid", std::to_string(victim.pid()), "--interval", "500ms", "--metrics", "127.0.0.1:0",
               "--textfile", textfile});
  ASSERT_TRUE(trace.started());
  const uint16_t port = port_of(trace.process());
  ASSERT_NE(port, 0) << trace.process().errors();
  const auto truth = victim.truth();
  ASSERT_TRUE(trace.wait_stall("closed", 5));

  const std::string open =
      http_get(port, "/metrics", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
  EXPECT_TRUE(open.starts_with("HTTP/1.1 200 OK\r\n")) << open;
  EXPECT_TRUE(open.ends_with("\n# EOF\n")) << open;
  EXPECT_NE(open.find(" # {stall_id=\""), std::string::npos) << open;
  EXPECT_TRUE(http_get(port, "/healthz").ends_with("\r\n\r\nok\n"));

  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  EXPECT_EQ(http_get(port, "/metrics"), "") << "nobody serves what is over";
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  ASSERT_EQ(stalls.size(), truth.size());
  uint64_t stall_ns = 0, busy_ns = 0, idle_ns = 0, iterations = 0;
  for (const json& s : stalls) stall_ns += s["duration_ns"].get<uint64_t>();
  for (const json& l : trace.records("looptrace.loop/1")) {
    busy_ns += l["busy_ns"].get<uint64_t>();
    idle_ns += l["idle_ns"].get<uint64_t>();
    iterations += l.value("iterations", uint64_t{0});
  }
  std::ifstream file(textfile);
  std::stringstream text;
  text << file.rdbuf();
  auto have = samples(text.str());
  const std::string service = stalls[0]["process"]["comm"];
  const auto series = [&](const char* name, const char* more = "") {
    return std::string("looptrace_") + name + "{service=\"" + service + '"' + more + '}';
  };
  EXPECT_EQ(have[series("stalls_total", ",cause=\"sleep\"")], std::to_string(truth.size()));
  EXPECT_EQ(have[series("stalls_total", ",cause=\"cpu\"")], "0");
  EXPECT_EQ(have[series("stall_seconds_total", ",cause=\"sleep\"")], seconds(stall_ns));
  EXPECT_EQ(have[series("stall_duration_seconds_count")], std::to_string(truth.size()));
  EXPECT_EQ(have[series("stall_duration_seconds_sum")], seconds(stall_ns));
  EXPECT_EQ(have[series("stalls_open")], "0");
  EXPECT_EQ(have[series("loop_busy_seconds_total")], seconds(busy_ns));
  EXPECT_EQ(have[series("loop_idle_seconds_total")], seconds(idle_ns));
  EXPECT_EQ(have[series("iteration_duration_seconds_count")], std::to_string(iterations));
  EXPECT_NE(have[series("wakeup_delay_seconds_count")], "0");
}

TEST(Metrics, APortThatIsTakenIsToldBeforeAnythingIsTraced) {
  LOOPTRACE_NEEDS_ROOT();
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof at;
  ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&at), length), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &length), 0);
  const std::string address = "127.0.0.1:" + std::to_string(ntohs(at.sin_port));
  const Outcome o = run_looptrace({"-d", "5s", "--metrics", address});
  close(fd);
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.errors.find(address), std::string::npos) << o.errors;
  EXPECT_NE(o.errors.find("another program has this port; --metrics"), std::string::npos) << o.errors;
  EXPECT_EQ(o.out, "");
}

}  // namespace
}  // namespace looptrace::test
