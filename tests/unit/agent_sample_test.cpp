// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "agent/sampling_sink.h"
#include "agent/schedule.h"
#include "agent/varopt.h"
#include "agent/window_sample.h"

namespace looptrace {
namespace {

constexpr uint64_t kMs = 1'000'000;

Stall stall(const std::string& service, Cause cause, uint64_t duration_ns,
            const std::string& fingerprint = "f", uint64_t time_ns = 0) {
  Stall s;
  s.service = service;
  s.cause = cause;
  s.duration_ns = duration_ns;
  s.threshold_ns = 50 * kMs;
  s.fingerprint = fingerprint;
  s.time_ns = time_ns;
  return s;
}

TEST(VarOpt, TheSumStaysAndTheBigStay) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> coin(0, 1);
  for (const size_t limit : {1u, 2u, 7u, 100u}) {
    std::vector<VarOptSize> sample;
    double sum = 0;
    for (int i = 0; i < 1000; ++i) {
      const double size = i == 500 ? 1e6 : 1 / (1.001 - coin(random));
      sum += size;
      sample.push_back({size, size});
      if (sample.size() <= limit) continue;
      std::sort(sample.begin(), sample.end(), [](auto& a, auto& b) { return a.adjusted < b.adjusted; });
      std::vector<VarOptSize*> items;
      for (VarOptSize& item : sample) items.push_back(&item);
      sample.erase(sample.begin() + static_cast<std::ptrdiff_t>(varopt_drop(items, coin(random))));
    }
    ASSERT_EQ(sample.size(), limit);
    double estimate = 0;
    bool kept_biggest = false;
    for (const VarOptSize& item : sample) {
      EXPECT_GE(item.weight(), 1 - 1e-9);
      estimate += item.weight() * item.size;
      kept_biggest |= item.size == 1e6;
    }
    EXPECT_NEAR(estimate / sum, 1, 1e-9) << limit;
    EXPECT_TRUE(kept_biggest) << limit;
  }
}

TEST(VarOpt, EachStaysAsOftenAsItShould) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> coin(0, 1);
  // t = 4: 1 / 4, 3 / 4 and 10 / 4 > 1 of three items, two of which stay.
  int gone[3] = {};
  constexpr int kRuns = 40'000;
  for (int run = 0; run < kRuns; ++run) {
    VarOptSize items[3] = {{1, 1}, {3, 3}, {10, 10}};
    ++gone[varopt_drop({&items[0], &items[1], &items[2]}, coin(random))];
    EXPECT_EQ(items[2].adjusted, 10);
    EXPECT_EQ(items[0].adjusted, 4);
  }
  EXPECT_NEAR(gone[0], 0.75 * kRuns, 400);
  EXPECT_NEAR(gone[1], 0.25 * kRuns, 400);
  EXPECT_EQ(gone[2], 0);
}

/// Mean and its standard error over many runs.
struct Tally {
  double n = 0, sum = 0, squares = 0;
  void add(double x) {
    ++n;
    sum += x;
    squares += x * x;
  }
  double mean() const { return sum / n; }
  double deviation() const { return std::sqrt(std::max(0.0, squares / n - mean() * mean())); }
  double error() const { return deviation() / std::sqrt(n); }
};

/// One stall of the simulated window.
struct Drawn {
  Cause cause;
  int service, place;  ///< place: what the fingerprint tells
  uint64_t duration_ns;
};

// A heavy-tailed window: two services, a common cause, a less common one and one of 1 in 250.
std::vector<Drawn> draw(size_t n) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<Drawn> drawn;
  for (size_t i = 0; i < n; ++i) {
    const double u = uniform(random);
    const Cause cause = u < 0.9 ? Cause::network : u < 0.996 ? Cause::lock : Cause::page_fault;
    const double duration = 50e6 / std::pow(1 - uniform(random), 1 / 1.5);  // Pareto 1.5 from 50 ms on
    drawn.push_back({cause, uniform(random) < 0.8 ? 0 : 1,
                     static_cast<int>(100 * uniform(random) * uniform(random)),
                     static_cast<uint64_t>(std::min(duration, 60e9))});
  }
  return drawn;
}

// The claim that everything rests on: over many runs of the sampler with other seeds, sums of weight and of
// weight x duration hit the truth, of all, of each cause (the rare one included), of a place that no stratum
// knows of.
TEST(WindowSample, EstimatesAreUnbiasedOverTenThousandSeeds) {
#ifdef __SANITIZE_ADDRESS__
  constexpr int kRuns = 500;
#else
  constexpr int kRuns = 10'000;
#endif
  const std::vector<Drawn> window = draw(400);
  struct Question {
    const char* what;
    bool (*of)(const Drawn&);
    Tally count, time;
    double true_count = 0, true_time = 0;
  };
  Question questions[] = {
      {"all", [](const Drawn&) { return true; }, {}, {}},
      {"network", [](const Drawn& d) { return d.cause == Cause::network; }, {}, {}},
      {"lock", [](const Drawn& d) { return d.cause == Cause::lock; }, {}, {}},
      {"page_fault", [](const Drawn& d) { return d.cause == Cause::page_fault; }, {}, {}},
      {"one place", [](const Drawn& d) { return d.place == 3; }, {}, {}},
      {"a second and more", [](const Drawn& d) { return d.duration_ns >= 1'000'000'000; }, {}, {}},
  };
  for (Question& q : questions) {
    for (const Drawn& d : window) {
      if (!q.of(d)) continue;
      ++q.true_count;
      q.true_time += static_cast<double>(d.duration_ns);
    }
    ASSERT_GT(q.true_count, 0) << q.what;
  }
  // What the sampler looks at, built once; time_ns carries the index back.
  std::vector<Stall> stalls;
  for (size_t i = 0; i < window.size(); ++i)
    stalls.push_back(stall(window[i].service ? "b" : "a", window[i].cause, window[i].duration_ns,
                           std::to_string(window[i].place), i));
  for (int run = 0; run < kRuns; ++run) {
    WindowSample sample({48, 4}, static_cast<uint64_t>(run));
    for (const Stall& s : stalls) sample.add(s);
    const auto outcome = sample.take();
    ASSERT_LE(outcome.stalls.size(), 48u);
    ASSERT_EQ(outcome.totals.seen, window.size());
    for (Question& q : questions) {
      double count = 0, time = 0;
      for (const Stall& s : outcome.stalls) {
        if (!q.of(window[s.time_ns])) continue;
        count += s.sample_weight;
        time += s.sample_weight * static_cast<double>(s.duration_ns);
      }
      q.count.add(count);
      q.time.add(time);
    }
  }
  for (const Question& q : questions) {
    std::printf("%-18s count %6.1f of %4.0f +- %4.1f %%   time %7.2f s of %7.2f +- %4.1f %%\n", q.what,
                q.count.mean(), q.true_count, 100 * q.count.deviation() / q.true_count, q.time.mean() / 1e9,
                q.true_time / 1e9, 100 * q.time.deviation() / q.true_time);
    // Four and a half standard errors: of twelve questions, one in ten thousand runs of this test would miss.
    EXPECT_NEAR(q.count.mean(), q.true_count, 4.5 * q.count.error() + 1e-6 * q.true_count) << q.what;
    EXPECT_NEAR(q.time.mean(), q.true_time, 4.5 * q.time.error() + 1e-6 * q.true_time) << q.what;
  }
  EXPECT_LT(questions[0].time.deviation(), 1e-6 * questions[0].true_time) << "the sum over all is exact";
  EXPECT_LT(questions[3].count.deviation() / questions[3].true_count, 0.5) << "the rare cause is not drowned";
  EXPECT_LT(questions[0].count.deviation() / questions[0].true_count, 0.25);
  EXPECT_LT(questions[5].count.deviation() / questions[5].true_count, 0.8) << "1.6 if length did not matter";
}

TEST(WindowSample, MemoryIsBoundedWhateverComes) {
  std::mt19937_64 random(3);
  for (const size_t records : {1u, 8u, 50u, 200u}) {
    WindowSample sample({records, 20}, 1);
    for (int i = 0; i < 20'000; ++i) {
      sample.add(stall("s" + std::to_string(random() % 500), static_cast<Cause>(random() % 14),
                       50 * kMs + random() % 1000, std::to_string(random() % 5000)));
      ASSERT_LE(sample.held(), records);
    }
    const auto outcome = sample.take();
    EXPECT_EQ(outcome.totals.seen, 20'000u);
    EXPECT_EQ(outcome.totals.seen, outcome.totals.kept + outcome.sampled_out);
    EXPECT_LE(outcome.strata.size(), 32u);
    EXPECT_LE(outcome.capped.size(), 32u);
  }
}

TEST(WindowSample, AFingerprintIsCappedAndCountedExactly) {
  WindowSample sample({200, 5}, 1);
  uint64_t time = 0;
  for (int i = 0; i < 100; ++i) {
    const auto ns = static_cast<uint64_t>(50 + i) * kMs;
    time += ns;
    sample.add(stall("web", Cause::cpu, ns, "hot"));
  }
  sample.add(stall("web", Cause::cpu, 70 * kMs, "cold"));
  const auto outcome = sample.take();
  EXPECT_EQ(outcome.stalls.size(), 6u);
  ASSERT_EQ(outcome.capped.size(), 1u);
  EXPECT_EQ(outcome.capped[0].fingerprint, "hot");
  EXPECT_EQ(outcome.capped[0].stalls.seen, 100u);
  EXPECT_EQ(outcome.capped[0].stalls.seen_ns, time);
  EXPECT_EQ(outcome.capped[0].stalls.kept, 5u);
  double weighted = 0;
  for (const Stall& s : outcome.stalls)
    weighted += s.fingerprint == "hot" ? s.sample_weight * static_cast<double>(s.duration_ns) : 0;
  EXPECT_NEAR(weighted, static_cast<double>(time), 1.0);
}

TEST(WindowSample, ALoudServiceDoesNotDrownAQuietOne) {
  WindowSample sample({50, 50}, 1);
  for (int i = 0; i < 5000; ++i) sample.add(stall("loud", Cause::network, 60 * kMs, std::to_string(i % 7)));
  for (int i = 0; i < 5; ++i) sample.add(stall("quiet", Cause::lock, 60 * kMs));
  const auto outcome = sample.take();
  for (const StratumTotals& stratum : outcome.strata) {
    EXPECT_TRUE(stratum.service != "quiet" || stratum.stalls.kept == 5u);
  }
  EXPECT_EQ(outcome.stalls.size(), 50u);
}

/// Keeps what comes.
class Kept : public Sink {
 public:
  std::vector<Stall> stalls;
  Result<void> start(const StartRecord&) override { return {}; }
  Result<void> stall(const Stall& s) override {
    stalls.push_back(s);
    return {};
  }
  Result<void> loop(const LoopRecord&) override { return {}; }
  Result<void> window(const WindowRecord&) override { return {}; }
  Result<void> warning(const WarningRecord&) override { return {}; }
  Result<void> summary(const SummaryRecord&) override { return {}; }
};

TEST(SamplingSink, AStallBelongsToTheWindowThatItBeganIn) {
  Kept kept;
  SamplingSink sink(kept);
  sink.open_window({7, 1000, 2000, true}, {}, 1, 0.25);
  sink.open_window({8, 2000, 3000, true}, {}, 1, 0.25);
  for (const uint64_t time : {999u, 1000u, 1999u, 2000u, 2999u, 3000u})
    ASSERT_TRUE(sink.stall(stall("web", Cause::cpu, 60 * kMs, "f", time)));
  EXPECT_TRUE(kept.stalls.empty()) << "not before the window is over";
  const auto first = sink.close_window(7);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->totals.seen, 2u);
  ASSERT_EQ(kept.stalls.size(), 2u);
  EXPECT_EQ(kept.stalls[0].time_ns, 1000u);
  EXPECT_EQ(kept.stalls[0].sample_weight, 4.0);
  EXPECT_EQ(kept.stalls[0].sample->window, 7u);
  EXPECT_EQ(kept.stalls[0].sample->probability, 0.25);
  ASSERT_TRUE(sink.close_window(8));
  EXPECT_EQ(kept.stalls.size(), 4u);
  EXPECT_EQ(sink.close_window(9)->totals.seen, 0u) << "no such window";
}

// The whole way, from the schedule to the weights: a host that is traced a quarter of the time, and what its
// records say of all of its stalls, also of those that are longer than a window. Over 10,000 seeds.
TEST(SamplingSink, EstimatesOfAHostTracedNowAndThenAreUnbiased) {
#ifdef __SANITIZE_ADDRESS__
  constexpr int kRuns = 1000;
#else
  constexpr int kRuns = 10'000;
#endif
  constexpr uint64_t kWindow = 1000 * kMs, kWindows = 24, kOrigin = 1'000'000 * kWindow;
  constexpr double kProbability = 0.25;
  // 8 stalls a window begin, at any time; one in thirty is of the rare cause.
  std::vector<Stall> stalls;
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (uint64_t i = 0; i < 8 * kWindows; ++i) {
    const auto duration =
        static_cast<uint64_t>(std::min(50e6 / std::pow(1 - uniform(random), 1 / 1.2), 20e9));
    stalls.push_back(stall("web", i % 30 == 7 ? Cause::page_fault : Cause::network, duration,
                           std::to_string(i % 5), kOrigin + random() % (kWindow * kWindows)));
  }
  struct Question {
    const char* what;
    bool (*of)(const Stall&);
    Tally count, time;
    double true_count = 0, true_time = 0;
  };
  Question questions[] = {
      {"all", [](const Stall&) { return true; }, {}, {}},
      {"page_fault", [](const Stall& s) { return s.cause == Cause::page_fault; }, {}, {}},
      {"one fingerprint", [](const Stall& s) { return s.fingerprint == "3"; }, {}, {}},
      {"longer than a window", [](const Stall& s) { return s.duration_ns > kWindow; }, {}, {}},
  };
  for (Question& q : questions) {
    for (const Stall& s : stalls) {
      q.true_count += q.of(s);
      q.true_time += q.of(s) ? static_cast<double>(s.duration_ns) : 0;
    }
    ASSERT_GT(q.true_count, 3) << q.what;
  }
  Tally within;  // what a tool would say that only counts what lies in one window from end to end
  double traced = 0;
  for (int run = 0; run < kRuns; ++run) {
    const Schedule schedule("seed " + std::to_string(run), "n1", kWindow, kProbability);
    Kept kept;
    SamplingSink sink(kept);
    double inside = 0;
    // From the window before the first stall to the one after the last: they begin at another phase each
    // time.
    const uint64_t first = schedule.at(kOrigin).number;
    for (uint64_t n = first; n <= first + kWindows; ++n) {
      const Schedule::Window w = schedule.window(n);
      traced += w.active;
      if (!w.active) continue;
      sink.open_window(w, {6, 3}, static_cast<uint64_t>(run) * 1000 + n, kProbability);
      for (const Stall& s : stalls) {
        if (s.time_ns < w.start_ns || s.time_ns >= w.end_ns) continue;
        if (s.time_ns + s.duration_ns <= w.end_ns) inside += static_cast<double>(s.duration_ns);
        ASSERT_TRUE(sink.stall(s));
      }
      ASSERT_TRUE(sink.close_window(n));
    }
    for (Question& q : questions) {
      double count = 0, time = 0;
      for (const Stall& s : kept.stalls) {
        if (!q.of(s)) continue;
        count += s.sample_weight;
        time += s.sample_weight * static_cast<double>(s.duration_ns);
      }
      q.count.add(count);
      q.time.add(time);
    }
    within.add(inside / kProbability);
  }
  EXPECT_NEAR(traced / (kRuns * (kWindows + 1)), kProbability, 0.005);
  for (const Question& q : questions) {
    std::printf("%-21s count %6.2f of %4.0f +- %3.0f %%   time %6.2f s of %6.2f +- %3.0f %%\n", q.what,
                q.count.mean(), q.true_count, 100 * q.count.deviation() / q.true_count, q.time.mean() / 1e9,
                q.true_time / 1e9, 100 * q.time.deviation() / q.true_time);
    EXPECT_NEAR(q.count.mean(), q.true_count, 4.5 * q.count.error()) << q.what;
    EXPECT_NEAR(q.time.mean(), q.true_time, 4.5 * q.time.error()) << q.what;
  }
  EXPECT_LT(within.mean(), questions[0].true_time - 20 * within.error()) << "this test cannot fail";
}

TEST(SamplingSink, LongStallsAreToldOfAtOnceButNotWithoutEnd) {
  Kept kept;
  SamplingSink sink(kept);
  sink.open_window({7, 1000, 2000, true}, {}, 1, 1);
  Stall open = stall("web", Cause::cpu, 60 * kMs, "f", 1500);
  open.state = StallState::open;
  ASSERT_TRUE(sink.stall(open));
  EXPECT_TRUE(kept.stalls.empty()) << "it may end any moment";
  open.duration_ns = 500 * kMs;
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(sink.stall(open));
  EXPECT_EQ(kept.stalls.size(), 16u);
  EXPECT_EQ(sink.close_window(7)->totals.seen, 0u) << "closed records are what counts";
}

}  // namespace
}  // namespace looptrace
