// SPDX-License-Identifier: Apache-2.0
// Nothing is lost in silence: each stall is reported, or counted under the reason why not, whatever happens
// to the ring, the reader or the disk.
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "harness.h"

namespace looptrace::test {
namespace {

uint64_t sum_of(const json& summary, const std::vector<std::string>& reasons) {
  const json dropped = summary.value("dropped", json::object());
  uint64_t sum = 0;
  for (const std::string& r : reasons) sum += dropped.value(r, uint64_t{0});
  return sum;
}

const std::vector<std::string> kStallReasons = {"stall_ring_full", "stall_queue_full",
                                                "stall_of_unknown_loop"};

/// Everything that the victim did was seen, and what was seen was written or counted as dropped.
void expect_all_accounted(Trace& trace, uint64_t truth) {
  const auto summary = trace.summary();
  ASSERT_TRUE(summary) << trace.process().errors();
  const uint64_t seen = summary->at("stalls_seen"), emitted = summary->at("stalls_emitted");
  const uint64_t dropped = sum_of(*summary, kStallReasons);
  std::printf("true %llu, seen %llu, emitted %llu, dropped %llu %s\n", static_cast<unsigned long long>(truth),
              static_cast<unsigned long long>(seen), static_cast<unsigned long long>(emitted),
              static_cast<unsigned long long>(dropped),
              summary->value("dropped", json::object()).dump().c_str());
  EXPECT_EQ(seen, truth);
  EXPECT_EQ(emitted + dropped, seen);
  EXPECT_EQ(trace.stalls().size(), emitted);
}

TEST(Loss, AFullRingIsCountedToTheLastStall) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--threads", "40", "--count", "30", "--stall-ms", "30", "--gap-ms", "5",
                                "--delay-ms", "1000"});
  ASSERT_TRUE(victim.ready());
  Trace trace({"--pid", std::to_string(victim.pid()), "--hook", "always", "--threshold", "20ms",
               "--ring-bytes", "64k", "-i", "1s"});
  ASSERT_TRUE(trace.started());
  usleep(500'000);
  // Nobody empties the ring for a while.
  trace.process().signal(SIGSTOP);
  usleep(700'000);
  trace.process().signal(SIGCONT);
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  expect_all_accounted(trace, truth.size());
  EXPECT_GT(sum_of(*trace.summary(), {"stall_ring_full"}), 0u);
  const auto warnings = trace.records("looptrace.warning/1");
  EXPECT_TRUE(std::any_of(warnings.begin(), warnings.end(), [](const json& w) {
    return w["code"] == "stall_ring_full" &&
           w["message"].get<std::string>().find("--ring-bytes") != std::string::npos;
  }));
}

struct Thousand {
  const char *hook, *threshold;
  std::vector<std::string> args;
};

void PrintTo(const Thousand& c, std::ostream* out) { *out << "--hook " << c.hook; }

class Thousands : public testing::TestWithParam<Thousand> {};

TEST_P(Thousands, OfStallsAreReportedExactly) {
  LOOPTRACE_NEEDS_ROOT();
  const Thousand& c = GetParam();
  std::vector<std::string> args = {"--delay-ms", "20000"};
  args.insert(args.end(), c.args.begin(), c.args.end());
  Victim victim("epoll_sleep", args);
  ASSERT_TRUE(victim.ready());
  Trace trace({"--pid", std::to_string(victim.pid()), "--hook", c.hook, "--threshold", c.threshold});
  ASSERT_TRUE(trace.started());
  victim.begin();
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  EXPECT_GE(truth.size(), 1000u);
  expect_all_accounted(trace, truth.size());
  EXPECT_EQ(trace.summary()->value("stalls_emitted", uint64_t{0}), truth.size());
  auto shown = trace.stalls();
  // One for one; how exact each is is asked elsewhere, of fewer.
  expect_exactly(shown, truth, 1'000'000'000);
}

const Thousand kThousands[] = {
    {"always", "2ms", {"--threads", "2", "--count", "600", "--stall-ms", "3", "--gap-ms", "2"}},
    {"auto", "20ms", {"--count", "30", "--threads", "40", "--stall-ms", "40", "--gap-ms", "20"}},
};

INSTANTIATE_TEST_SUITE_P(Hooks, Thousands, testing::ValuesIn(kThousands),
                         [](const auto& info) { return std::string(info.param.hook); });

TEST(Loss, ASlowReaderCostsRecordsNotMemory) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--threads", "150", "--count", "120", "--stall-ms", "35", "--gap-ms", "5",
                                "--delay-ms", "2500"});
  ASSERT_TRUE(victim.ready());
  Trace trace(
      {"--pid", std::to_string(victim.pid()), "--hook", "always", "--threshold", "20ms", "--no-stacks"},
      ProcessOptions{false, 0, {}});
  const auto truth = victim.truth();  // about five seconds
  const uint64_t rss = status_number(trace.process().pid(), "VmRSS");
  std::printf("VmRSS %llu kB with a reader that does not read\n", static_cast<unsigned long long>(rss));
  EXPECT_LT(rss, 160u << 10);
  EXPECT_FALSE(trace.process().ended());
  trace.process().read_output();
  usleep(500'000);
  EXPECT_EQ(trace.stop(), 0);
  expect_all_accounted(trace, truth.size());
  EXPECT_GT(sum_of(*trace.summary(), {"stall_queue_full"}), 0u);
}

/// A trace that hangs in its last writes since nobody reads, after its victim's end.
void expect_second_interrupt_ends_it(std::vector<std::string> args, bool ends_by_itself) {
  Victim victim("epoll_sleep", {"--threads", "20", "--count", "20", "--stall-ms", "30", "--gap-ms", "5",
                                "--delay-ms", "1000"});
  args.insert(args.end(), {"--pid", std::to_string(victim.pid()), "--threshold", "20ms"});
  Trace trace(args, ProcessOptions{false, 0, {}});
  (void)victim.truth();  // more than a pipe holds
  if (ends_by_itself) usleep(500'000);
  trace.process().signal(SIGINT);
  usleep(300'000);
  EXPECT_FALSE(trace.process().ended()) << "it waits for its reader";
  trace.process().signal(SIGINT);
  EXPECT_EQ(trace.process().wait(3), 130);
}

TEST(Loss, ASecondInterruptEndsAHungWrite) {
  LOOPTRACE_NEEDS_ROOT();
  expect_second_interrupt_ends_it({}, false);
}

TEST(Loss, ASecondInterruptEndsAHungWriteOfATraceThatIsOver) {
  LOOPTRACE_NEEDS_ROOT();
  expect_second_interrupt_ends_it({"-d", "1.5s"}, true);
}

TEST(Loss, AReaderThatGoesAwayEndsItQuietly) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "3", "--delay-ms", "1000"});
  const Outcome o = run({"/bin/bash", "-c",
                         std::string(LOOPTRACE_BINARY) + " -p " + std::to_string(victim.pid()) +
                             " -f json | head -n 1; exit ${PIPESTATUS[0]}"});
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.errors, "");
  EXPECT_TRUE(o.out.starts_with("{\"schema\":\"looptrace.start/1\""));
}

TEST(Loss, AFullDiskIsAFailureThatSaysSo) {
  LOOPTRACE_NEEDS_ROOT();
  const Outcome device = run_looptrace({"-d", "1s", "-f", "json", "-o", "/dev/full"});
  EXPECT_EQ(device.code, 1);
  EXPECT_NE(device.errors.find("/dev/full"), std::string::npos) << device.errors;
  EXPECT_NE(device.errors.find("No space left"), std::string::npos) << device.errors;

  Directory directory;
  ASSERT_EQ(mount("none", directory.path().c_str(), "tmpfs", 0, "size=16k"), 0);
  {
    Victim victim("epoll_sleep",
                  {"--count", "8", "--stall-ms", "60", "--gap-ms", "10", "--delay-ms", "1000"});
    const Outcome o = run_looptrace(
        {"-p", std::to_string(victim.pid()), "-d", "5s", "-f", "json", "-o", directory.path() + "/log"});
    EXPECT_EQ(o.code, 1);
    EXPECT_NE(o.errors.find("free some space"), std::string::npos) << o.errors;
  }
  umount(directory.path().c_str());
}

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

TEST(Output, IsReopenedOnHangup) {
  LOOPTRACE_NEEDS_ROOT();
  Directory directory;
  const std::string log = directory.path() + "/log";
  Victim victim("epoll_sleep", {"--count", "4", "--stall-ms", "80", "--gap-ms", "250", "--delay-ms", "1000"});
  Process trace({LOOPTRACE_BINARY, "-p", std::to_string(victim.pid()), "-f", "json", "-o", log});
  const uint64_t end = monotonic_ns() + 5'000'000'000;
  while (lines_of(log).size() < 3 && monotonic_ns() < end) usleep(5000);  // start, open, closed
  rename(log.c_str(), (log + ".1").c_str());
  trace.signal(SIGHUP);
  const auto truth = victim.truth();
  usleep(200'000);
  trace.signal(SIGINT);
  EXPECT_EQ(trace.wait(), 0) << trace.errors();
  const auto closed = [](const std::string& path) {
    const auto lines = lines_of(path);
    return std::count_if(lines.begin(), lines.end(),
                         [](const std::string& l) { return json::parse(l).value("state", "") == "closed"; });
  };
  const auto before = closed(log + ".1"), after = closed(log);
  EXPECT_EQ(before + after, 4);
  EXPECT_GE(before, 1);
  EXPECT_GE(after, 2);
  EXPECT_EQ(truth.size(), 4u);
}

TEST(Output, StopsAfterSoManyStalls) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "8", "--stall-ms", "70", "--delay-ms", "1000"});
  Trace trace({"-p", std::to_string(victim.pid()), "-n", "2"});
  EXPECT_EQ(trace.wait(5), 0) << trace.process().errors();
  EXPECT_EQ(trace.stalls().size(), 2u);
  EXPECT_EQ(trace.summary()->at("stalls_emitted"), 2);
}

TEST(Output, StopsAfterTheDuration) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "0", "--delay-ms", "3000"});
  const uint64_t from = monotonic_ns();
  Trace trace({"-p", std::to_string(victim.pid()), "-d", "0.7s"});
  EXPECT_EQ(trace.wait(5), 0);
  EXPECT_NEAR(static_cast<double>(monotonic_ns() - from) / 1e9, 0.7, 1.0);
  EXPECT_GE(trace.summary()->at("elapsed_ns").get<uint64_t>(), 700'000'000u);
}

TEST(Output, LinesKeepToTheirLimit) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("deep_stack", {"--count", "2", "--stall-ms", "70", "--delay-ms", "1000"});
  Trace trace({"-p", std::to_string(victim.pid()), "--max-line", "1024"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0);
  expect_exactly(trace.stalls(), truth);
  for (const std::string& line : trace.process().lines()) EXPECT_LE(line.size() + 1, 1024u);
  for (const json& s : trace.stalls()) EXPECT_FALSE(s.value("truncated", json::array()).empty()) << s.dump();
}

}  // namespace
}  // namespace looptrace::test
