// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/files.h"
#include "record/histogram.h"
#include "sinks/metrics/endpoint.h"
#include "sinks/metrics/metrics.h"
#include "sinks/metrics/prometheus.h"
#include "sinks/metrics/textfile.h"

namespace looptrace {
namespace {

constexpr uint64_t kMs = 1'000'000;

Stall stall_of(const std::string& comm, uint64_t ns, Cause cause = Cause::network) {
  Stall s;
  s.id = "n1-5f3a-42";
  s.time_ns = 1'795'424'400'123'456'789;
  s.duration_ns = ns;
  s.process.pid = 101;
  s.process.comm = comm;
  s.thread_id = 101;
  s.cause = cause;
  return s;
}

LoopRecord loop_of(const std::string& comm, uint32_t tid, uint64_t busy_ns, uint64_t idle_ns) {
  LoopRecord r;
  r.process.pid = 101;
  r.process.comm = comm;
  r.thread_id = tid;
  r.busy_ns = busy_ns;
  r.idle_ns = idle_ns;
  return r;
}

BucketCounts counts_of(std::initializer_list<uint64_t> values) {
  constexpr HistogramShape kShape;
  BucketCounts counts;
  counts.counts.resize(kShape.buckets());
  for (const uint64_t v : values) {
    ++counts.counts[kShape.bucket(v)];
    counts.sum_ns += v;
  }
  return counts;
}

SummaryRecord summary_of(std::map<std::string, uint64_t> dropped = {}) {
  SummaryRecord r;
  r.own_cpu_ns = 1'250 * kMs;
  r.resident_bytes = 20'000'000;
  r.dropped = std::move(dropped);
  return r;
}

std::string text_of(const Metrics& metrics, Exposition exposition = Exposition::text) {
  return write_metrics(metrics.copy(), exposition);
}

// The value of the sample that is written exactly so; "" if there is none.
std::string value(const std::string& text, const std::string& series) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(series + ' ')) return line.substr(series.size() + 1);
  }
  return "";
}

void expect_golden(const std::string& name, const std::string& text) {
  const std::string path = std::string(TEST_DATA_DIR) + "/sinks/" + name;
  if (std::getenv("LOOPTRACE_UPDATE_GOLDEN")) std::ofstream(path) << text;
  const auto golden = read_file(path);
  ASSERT_TRUE(golden) << golden.error().message();
  EXPECT_EQ(text, *golden);
}

void feed(Metrics& metrics) {
  StartRecord start;
  start.version = "0.1.0";
  start.kernel = "6.18.44";
  start.hook = "auto";
  ASSERT_TRUE(metrics.start(start));
  LoopRecord loop = loop_of("web", 101, 2'500 * kMs, 7'500 * kMs);
  loop.iteration_counts = counts_of({65'535, 65'536, 3 * kMs, 90'000 * kMs});
  loop.wakeup_counts = counts_of({1'000, 50'000});
  loop.unconfirmed = 2;
  ASSERT_TRUE(metrics.stall(stall_of("web", 205'585'000)));
  Stall open = stall_of("web", 60 * kMs);
  open.state = StallState::open;
  open.id = "n1-5f3a-43";
  ASSERT_TRUE(metrics.stall(open));
  ASSERT_TRUE(metrics.loop(loop));
  ASSERT_TRUE(metrics.loop(loop_of("web", 102, 9'000 * kMs, 1'000 * kMs)));
  SummaryRecord summary = summary_of({{"stall_ring_full", 3}, {"unconfirmed", 2}, {"parked_worker", 9}});
  summary.bpf_run_ns = 7 * kMs;
  ASSERT_TRUE(metrics.summary(summary));
}

TEST(Metrics, GoldenExpositions) {
  Metrics metrics;
  feed(metrics);
  expect_golden("metrics.prom", text_of(metrics));
  expect_golden("metrics.openmetrics", text_of(metrics, Exposition::openmetrics));
}

TEST(Metrics, BothFormatsHaveTheSameSeries) {
  Metrics metrics;
  feed(metrics);
  const auto samples = [](const std::string& text) {
    std::vector<std::string> found;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with('#')) found.push_back(line.substr(0, line.find(" # ")));
    }
    return found;
  };
  EXPECT_EQ(samples(text_of(metrics)), samples(text_of(metrics, Exposition::openmetrics)));
}

TEST(Metrics, AStallCountsWhenItCloses) {
  Metrics metrics;
  Stall stall = stall_of("web", 50 * kMs);
  stall.state = StallState::open;
  ASSERT_TRUE(metrics.stall(stall));
  stall.duration_ns = 500 * kMs;  // its second report
  ASSERT_TRUE(metrics.stall(stall));
  std::string text = text_of(metrics);
  EXPECT_EQ(value(text, "looptrace_stalls_open{service=\"web\"}"), "1");
  EXPECT_EQ(value(text, "looptrace_stalls_total{service=\"web\",cause=\"network\"}"), "0");
  stall.state = StallState::closed;
  stall.duration_ns = 700 * kMs;
  ASSERT_TRUE(metrics.stall(stall));
  text = text_of(metrics);
  EXPECT_EQ(value(text, "looptrace_stalls_open{service=\"web\"}"), "0");
  EXPECT_EQ(value(text, "looptrace_stalls_total{service=\"web\",cause=\"network\"}"), "1");
  EXPECT_EQ(value(text, "looptrace_stalls_total{service=\"web\",cause=\"cpu\"}"), "0");
  EXPECT_EQ(value(text, "looptrace_stall_seconds_total{service=\"web\",cause=\"network\"}"), "0.7");
}

TEST(Metrics, AStallWhoseEndWasLostDoesNotStayOpen) {
  Metrics metrics;
  Stall stall = stall_of("web", 50 * kMs);
  stall.state = StallState::open;
  ASSERT_TRUE(metrics.stall(stall));
  ASSERT_TRUE(metrics.summary(summary_of()));
  for (int i = 0; i < 3; ++i) {  // a loop that hangs is reported all the same
    ASSERT_TRUE(metrics.loop(loop_of("web", 101, 10'000 * kMs, 0)));
    ASSERT_TRUE(metrics.summary(summary_of()));
    EXPECT_EQ(metrics.copy().services.at("web").open, 1u);
  }
  ASSERT_TRUE(metrics.summary(summary_of()));
  EXPECT_EQ(metrics.copy().services.at("web").open, 0u);
  // The next iteration of the same thread has taken its place: the same.
  ASSERT_TRUE(metrics.stall(stall));
  stall.id = "n1-5f3a-44";
  ASSERT_TRUE(metrics.stall(stall));
  EXPECT_EQ(metrics.copy().services.at("web").open, 1u);
}

TEST(Metrics, BoundsAreInclusive) {
  Metrics metrics;
  for (const uint64_t ns : {5 * kMs, 5 * kMs + 1, 300'000 * kMs, 300'000 * kMs + 1}) {
    ASSERT_TRUE(metrics.stall(stall_of("web", ns)));
  }
  const std::string text = text_of(metrics);
  const auto bucket = [&](const char* le) {
    return value(text,
                 std::string("looptrace_stall_duration_seconds_bucket{service=\"web\",le=\"") + le + "\"}");
  };
  EXPECT_EQ(bucket("0.005"), "1");
  EXPECT_EQ(bucket("0.01"), "2");
  EXPECT_EQ(bucket("120.0"), "2");
  EXPECT_EQ(bucket("300.0"), "3");
  EXPECT_EQ(bucket("+Inf"), "4");
  EXPECT_EQ(value(text, "looptrace_stall_duration_seconds_sum{service=\"web\"}"), "600.010000002");
  EXPECT_EQ(value(text, "looptrace_stall_duration_seconds_count{service=\"web\"}"), "4");
}

// The kernel's buckets are the finer ones: each value is counted below exactly the bounds that it is below
// of.
TEST(Metrics, KernelBucketsFallWholeIntoOurs) {
  constexpr HistogramShape kShape;
  Metrics empty;
  ASSERT_TRUE(empty.loop(loop_of("web", 1, 1, 1)));
  const MetricsState state = empty.copy();
  for (const BoundedHistogram& h :
       {state.services.at("web").iteration, state.services.at("web").wakeup_delay}) {
    ASSERT_GT(h.bounds.size(), 8u);
    for (const uint64_t bound : h.bounds) {
      const size_t bucket = kShape.bucket(bound);
      EXPECT_EQ(kShape.upper_bound(bucket), bound);
      EXPECT_EQ(kShape.bucket(bound + 1), bucket + 1);
    }
  }
}

TEST(Metrics, HistogramsAddUpOverLoopsAndIntervals) {
  Metrics metrics;
  for (const uint32_t tid : {1, 2, 3}) {
    LoopRecord loop = loop_of("web", tid, 1, 1);
    loop.iteration_counts = counts_of({65'535, 65'536, UINT64_MAX >> 1});
    ASSERT_TRUE(metrics.loop(loop));
  }
  const std::string text = text_of(metrics);
  const auto series = [](const char* le) {
    return std::string("looptrace_iteration_duration_seconds_bucket{service=\"web\",le=\"") + le + "\"}";
  };
  EXPECT_EQ(value(text, series("0.000065535")), "3");
  EXPECT_EQ(value(text, series("0.000262143")), "6");
  EXPECT_EQ(value(text, series("68.719476735")), "6");
  EXPECT_EQ(value(text, series("+Inf")), "9");
}

TEST(Metrics, UtilizationIsThatOfTheBusiestLoopInTheLastInterval) {
  Metrics metrics;
  ASSERT_TRUE(metrics.loop(loop_of("web", 1, 900, 100)));
  ASSERT_TRUE(metrics.loop(loop_of("web", 2, 250, 750)));
  EXPECT_EQ(value(text_of(metrics), "looptrace_loop_utilization_ratio{service=\"web\"}"), "");
  ASSERT_TRUE(metrics.summary(summary_of()));
  EXPECT_EQ(value(text_of(metrics), "looptrace_loop_utilization_ratio{service=\"web\"}"), "0.9");
  EXPECT_EQ(value(text_of(metrics), "looptrace_loops{service=\"web\"}"), "2");
  ASSERT_TRUE(metrics.loop(loop_of("web", 2, 250, 750)));
  ASSERT_TRUE(metrics.summary(summary_of()));
  EXPECT_EQ(value(text_of(metrics), "looptrace_loop_utilization_ratio{service=\"web\"}"), "0.25");
  EXPECT_EQ(value(text_of(metrics), "looptrace_loop_busy_seconds_total{service=\"web\"}"), "0.0000014");
  ASSERT_TRUE(metrics.summary(summary_of()));
  EXPECT_EQ(value(text_of(metrics), "looptrace_loops{service=\"web\"}"), "0");
  EXPECT_EQ(value(text_of(metrics), "looptrace_loop_utilization_ratio{service=\"web\"}"), "");
}

TEST(Metrics, ServicesBeyondTheCapShareOneLabel) {
  Metrics metrics(3);
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(metrics.loop(loop_of("svc-" + std::to_string(i), 1, 1'000'000'000, 0)));
  ASSERT_TRUE(metrics.loop(loop_of("svc-1", 1, 1'000'000'000, 0)));
  const MetricsState state = metrics.copy();
  EXPECT_EQ(state.services.size(), 4u);
  EXPECT_EQ(state.label_overflow, 7u);
  const std::string text = text_of(metrics);
  EXPECT_EQ(value(text, "looptrace_label_overflow_total"), "7");
  EXPECT_EQ(value(text, "looptrace_loop_busy_seconds_total{service=\"other\"}"), "7");
  EXPECT_EQ(value(text, "looptrace_loop_busy_seconds_total{service=\"svc-1\"}"), "2");
}

TEST(Metrics, AServiceLongGoneMakesWay) {
  Metrics metrics(2);
  ASSERT_TRUE(metrics.loop(loop_of("gone", 1, 1, 1)));
  for (uint64_t i = 0; i <= Metrics::kForgetAfter; ++i) {
    ASSERT_TRUE(metrics.loop(loop_of("here", 2, 1, 1)));
    if (i + 1 == Metrics::kForgetAfter) {
      ASSERT_TRUE(metrics.loop(loop_of("early", 3, 1, 1)));
    }
    ASSERT_TRUE(metrics.summary(summary_of()));
  }
  ASSERT_TRUE(metrics.loop(loop_of("late", 4, 1, 1)));
  const auto services = metrics.copy().services;
  EXPECT_FALSE(services.contains("gone"));
  EXPECT_FALSE(services.contains("early")) << "it came before the hour was over";
  EXPECT_TRUE(services.contains("here"));
  EXPECT_TRUE(services.contains("late"));
}

TEST(Metrics, HostileNamesStayInTheirLabel) {
  Metrics metrics;
  const std::string evil = "a\"} 1\n# EOF\\\r\x01\xff\xc3\x28";
  ASSERT_TRUE(metrics.loop(loop_of(evil, 1, 1, 1)));
  ASSERT_TRUE(metrics.loop(loop_of("", 1, 1, 1)));
  ASSERT_TRUE(metrics.loop(loop_of(std::string(500, 'x') + "\xe2\x82\xac", 1, 1, 1)));
  ASSERT_TRUE(metrics.loop(loop_of(std::string(127, 'y') + "\xe2\x82\xac", 1, 1, 1)));
  for (const Exposition exposition : {Exposition::text, Exposition::openmetrics}) {
    const std::string text = text_of(metrics, exposition);
    EXPECT_EQ(to_utf8(text), text);
    EXPECT_NE(text.find("{service=\"a\\\"} 1?# EOF\\\\??\xef\xbf\xbd\xef\xbf\xbd(\"}"), std::string::npos);
    EXPECT_NE(text.find("{service=\"unknown\"}"), std::string::npos);
    EXPECT_NE(text.find("{service=\"" + std::string(128, 'x') + "\"}"), std::string::npos);
    EXPECT_NE(text.find("{service=\"" + std::string(127, 'y') + "\"}"), std::string::npos);
    EXPECT_TRUE(std::none_of(text.begin(), text.end(),
                             [](unsigned char c) { return (c < 0x20 && c != '\n') || c == 0x7f; }));
  }
}

TEST(Metrics, ExemplarsNameTheStallAndFitTheFormat) {
  Metrics metrics;
  ASSERT_TRUE(metrics.stall(stall_of("web", 205'585'000)));
  Stall long_id = stall_of("web", 3'000 * kMs);
  long_id.id = std::string(121, 'h');
  ASSERT_TRUE(metrics.stall(long_id));
  const std::string text = text_of(metrics, Exposition::openmetrics);
  EXPECT_EQ(value(text, "looptrace_stall_duration_seconds_bucket{service=\"web\",le=\"0.25\"}"),
            "1 # {stall_id=\"n1-5f3a-42\"} 0.205585 1795424400.329");
  EXPECT_EQ(value(text, "looptrace_stall_duration_seconds_bucket{service=\"web\",le=\"5.0\"}"), "2");
  EXPECT_TRUE(text.ends_with("\n# EOF\n"));
  EXPECT_EQ(text_of(metrics).find("stall_id"), std::string::npos);
}

TEST(Metrics, LossesAreThoseOfTheSummaryButForJudgements) {
  Metrics metrics;
  feed(metrics);
  const std::string text = text_of(metrics);
  EXPECT_EQ(value(text, "looptrace_dropped_total{reason=\"stall_ring_full\"}"), "3");
  EXPECT_EQ(text.find("parked_worker"), std::string::npos);
  EXPECT_EQ(text.find("reason=\"unconfirmed\""), std::string::npos);
  EXPECT_EQ(value(text, "looptrace_stalls_unconfirmed_total{service=\"web\"}"), "2");
  EXPECT_EQ(value(text, "looptrace_agent_bpf_seconds_total"), "0.007");
  ASSERT_TRUE(metrics.summary(summary_of()));  // the kernel's statistics were turned off
  EXPECT_EQ(value(text_of(metrics), "looptrace_agent_bpf_seconds_total"), "");
}

// The agent restarts its trace, whose summaries begin at nothing; counters only grow.
TEST(Metrics, LossesAddUpOverTraces) {
  Metrics metrics;
  const std::string series = "looptrace_dropped_total{reason=\"stall_ring_full\"}";
  const auto start_and_lose = [&](uint64_t n, const std::string& told_before) {
    ASSERT_TRUE(metrics.start({}));
    EXPECT_EQ(value(text_of(metrics), series), told_before);
    ASSERT_TRUE(metrics.summary(summary_of()));
    ASSERT_TRUE(metrics.summary(summary_of({{"stall_ring_full", n}})));
    ASSERT_TRUE(metrics.summary(summary_of({{"stall_ring_full", n}})));
  };
  start_and_lose(3, "");
  start_and_lose(2, "3");
  ASSERT_TRUE(metrics.start({}));  // of one that came no further
  start_and_lose(4, "5");
  EXPECT_EQ(value(text_of(metrics), series), "9");
}

TEST(Metrics, WindowsTellWhatTheAgentKeepsAndSheds) {
  Metrics metrics;
  ASSERT_TRUE(metrics.loop(loop_of("web", 1, 1, 1)));
  ASSERT_TRUE(metrics.summary(summary_of()));
  EXPECT_EQ(text_of(metrics).find("looptrace_window"), std::string::npos) << "no agent, no windows";
  WindowRecord window;
  window.active = true;
  window.probability = 0.05;
  window.stalls = {4000, 1, 200};
  window.strata = {
      {"web", Cause::network, {3900, 1, 150}}, {"web", Cause::cpu, {50, 1, 40}}, {"", Cause::cpu, {9, 1, 3}}};
  window.bpf_run_ns = 3 * kMs;
  window.budget = {"fewer_stacks", 2, "cpu", 0.005, 0.0062, 0};
  ASSERT_TRUE(metrics.window(window));
  window.active = false;
  window.stalls = {};
  window.strata.clear();
  ASSERT_TRUE(metrics.window(window));
  metrics.reloaded(true);
  metrics.reloaded(false);
  metrics.reloaded(true);
  const std::string text = text_of(metrics);
  EXPECT_EQ(value(text, "looptrace_stalls_sampled_total{service=\"web\"}"), "190");
  EXPECT_EQ(value(text, "looptrace_stalls_sampled_total{service=\"unknown\"}"), "3");
  EXPECT_EQ(value(text, "looptrace_stalls_sampled_total{service=\"other\"}"), "7")
      << "beyond the listed strata";
  EXPECT_EQ(value(text, "looptrace_windows_total{active=\"true\"}"), "1");
  EXPECT_EQ(value(text, "looptrace_windows_total{active=\"false\"}"), "1");
  EXPECT_EQ(value(text, "looptrace_window_active"), "0");
  EXPECT_EQ(value(text, "looptrace_window_probability_ratio"), "0.05");
  EXPECT_EQ(value(text, "looptrace_agent_bpf_seconds_total"), "0.006");
  EXPECT_EQ(value(text, "looptrace_agent_budget_level"), "2");
  EXPECT_EQ(value(text, "looptrace_agent_budget_ratio"), "1.24");
  EXPECT_EQ(value(text, "looptrace_agent_budget_info{level=\"fewer_stacks\",reason=\"cpu\"}"), "1");
  EXPECT_EQ(value(text, "looptrace_agent_config_reloads_total{result=\"success\"}"), "2");
  EXPECT_EQ(value(text, "looptrace_agent_config_reloads_total{result=\"failure\"}"), "1");
}

TEST(Exposition, IsWhatTheClientTakes) {
  // What Prometheus 2.42 and 3.5 send, curl, a browser.
  EXPECT_EQ(choose_exposition("application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
                              "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
            Exposition::openmetrics);
  EXPECT_EQ(choose_exposition("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                              "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;"
                              "q=0.3,*/*;q=0.2"),
            Exposition::openmetrics);
  EXPECT_EQ(choose_exposition("*/*"), Exposition::text);
  EXPECT_EQ(choose_exposition(""), Exposition::text);
  EXPECT_EQ(choose_exposition("text/html,application/xhtml+xml,*/*;q=0.8"), Exposition::text);
  EXPECT_EQ(choose_exposition("Application/OpenMetrics-Text; Version=\"1.0.0\""), Exposition::openmetrics);
  EXPECT_EQ(choose_exposition("application/openmetrics-text;version=2.0.0"), Exposition::text);
  EXPECT_EQ(choose_exposition("application/openmetrics-text;q=0"), Exposition::text);
  EXPECT_EQ(choose_exposition("application/openmetrics-text;q=0.3,text/plain"), Exposition::text);
  EXPECT_EQ(choose_exposition(",,;q=,;;q=x,application/openmetrics-text;q=y"), Exposition::openmetrics);
}

TEST(Endpoint, ServesBothFormatsAndItsHealth) {
  Metrics metrics;
  feed(metrics);
  MetricsEndpoint endpoint(metrics, std::chrono::seconds(30));
  const HttpResponse text = endpoint.answer({"GET", "/metrics", "*/*"});
  EXPECT_EQ(text.status, 200);
  EXPECT_EQ(text.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(*text.body, text_of(metrics));
  const HttpResponse open = endpoint.answer({"GET", "/metrics", "application/openmetrics-text"});
  EXPECT_EQ(open.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
  EXPECT_EQ(*open.body, text_of(metrics, Exposition::openmetrics));
  EXPECT_EQ(endpoint.answer({"GET", "/healthz", ""}).status, 200);
  EXPECT_EQ(endpoint.answer({"GET", "/secret", ""}).status, 404);
  MetricsEndpoint late(metrics, std::chrono::nanoseconds(1));
  EXPECT_EQ(late.answer({"GET", "/healthz", ""}).status, 503);
}

TEST(Endpoint, WritesNoPageTwiceInItsLife) {
  Metrics metrics;
  feed(metrics);
  MetricsEndpoint endpoint(metrics, std::chrono::seconds(30), std::chrono::hours(1));
  const auto first = endpoint.answer({"GET", "/metrics", ""}).body;
  ASSERT_TRUE(metrics.stall(stall_of("web", 60 * kMs)));
  EXPECT_EQ(endpoint.answer({"GET", "/metrics", ""}).body, first);
  MetricsEndpoint fresh(metrics, std::chrono::seconds(30), std::chrono::milliseconds(0));
  const auto before = fresh.answer({"GET", "/metrics", ""}).body;
  EXPECT_EQ(fresh.answer({"GET", "/metrics", ""}).body, before) << "nothing has changed";
  ASSERT_TRUE(metrics.stall(stall_of("web", 60 * kMs)));
  EXPECT_NE(*fresh.answer({"GET", "/metrics", ""}).body, *before);
}

TEST(Textfile, IsReplacedWholeAndReadableByAll) {
  const std::string directory = testing::TempDir() + "/textfile." + std::to_string(::getpid());
  ASSERT_EQ(::mkdir(directory.c_str(), 0755), 0);
  const std::string path = directory + "/looptrace.prom";
  Metrics metrics;
  feed(metrics);
  TextfileSink sink(metrics, path);
  ASSERT_TRUE(sink.start({}));
  ASSERT_TRUE(sink.summary(summary_of()));
  EXPECT_EQ(*read_file(path), text_of(metrics));
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0644u);
  ASSERT_EQ(::unlink(path.c_str()), 0);
  EXPECT_EQ(::rmdir(directory.c_str()), 0) << "something is left beside it";

  const auto failed = sink.summary(summary_of());
  ASSERT_FALSE(failed);
  EXPECT_NE(failed.error().message().find("create its directory first"), std::string::npos);
}

}  // namespace
}  // namespace looptrace
