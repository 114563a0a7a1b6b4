// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "sinks/tee.h"

namespace looptrace {
namespace {

/// Remembers what it was given; fails when told to.
class Recorder : public SideSink, public Lossy {
 public:
  const char* name() const override { return "recorder"; }
  Result<void> start(const StartRecord&) override { return note("start"); }
  Result<void> stall(const Stall&) override { return note("stall"); }
  Result<void> loop(const LoopRecord&) override { return note("loop"); }
  Result<void> window(const WindowRecord&) override { return note("window"); }
  Result<void> warning(const WarningRecord& record) override {
    return note("warning " + record.code + ": " + record.message);
  }
  Result<void> summary(const SummaryRecord& record) override {
    last_summary = record;
    return note("summary");
  }
  std::map<std::string, uint64_t> dropped() const override { return lost; }
  void finish() override { seen.emplace_back("finish"); }

  std::vector<std::string> seen;
  SummaryRecord last_summary;
  std::map<std::string, uint64_t> lost;
  bool fails = false;

 private:
  Result<void> note(std::string what) {
    seen.push_back(std::move(what));
    return fails ? Result<void>(Error{"no room"}) : Result<void>();
  }
};

using Seen = std::vector<std::string>;

TEST(Tee, EachSinkGetsEachRecord) {
  Recorder main, side;
  TeeSink tee(main, {&side});
  ASSERT_TRUE(tee.start({}));
  ASSERT_TRUE(tee.stall({}));
  ASSERT_TRUE(tee.loop({}));
  ASSERT_TRUE(tee.window({}));
  ASSERT_TRUE(tee.warning({0, "code", "text"}));
  ASSERT_TRUE(tee.summary({}));
  const Seen all = {"start", "stall", "loop", "window", "warning code: text", "summary"};
  EXPECT_EQ(main.seen, all);
  EXPECT_EQ(side.seen, all);
}

TEST(Tee, ASideThatFailsIsToldOnceUntilItWorksAgain) {
  Recorder main, side;
  TeeSink tee(main, {&side});
  side.fails = true;
  ASSERT_TRUE(tee.stall({}));
  ASSERT_TRUE(tee.stall({}));
  side.fails = false;
  ASSERT_TRUE(tee.stall({}));
  side.fails = true;
  ASSERT_TRUE(tee.stall({}));
  const std::string told = "warning recorder_failed: no room";
  EXPECT_EQ(main.seen, (Seen{told, "stall", "stall", "stall", told, "stall"}));
}

TEST(Tee, TheMainSinkEndsTheTrace) {
  Recorder main, side;
  TeeSink tee(main, {&side});
  main.fails = true;
  EXPECT_FALSE(tee.stall({}));
}

TEST(Tee, LossesAreInTheSummaryAndToldWhenTheyGrow) {
  Recorder main, lossy;
  TeeSink tee(main, {}, {&lossy});
  SummaryRecord summary;
  summary.final = false;
  summary.dropped = {{"stall_ring_full", 1}};
  ASSERT_TRUE(tee.summary(summary));
  lossy.lost = {{"otlp_queue_full", 5}};
  ASSERT_TRUE(tee.summary(summary));
  EXPECT_EQ(main.last_summary.dropped,
            (std::map<std::string, uint64_t>{{"otlp_queue_full", 5}, {"stall_ring_full", 1}}));
  ASSERT_TRUE(tee.summary(summary));
  lossy.lost = {{"otlp_queue_full", 6}};
  ASSERT_TRUE(tee.summary(summary)) << "not told: it has not doubled";
  lossy.lost = {{"otlp_queue_full", 7}};
  summary.final = true;
  ASSERT_TRUE(tee.summary(summary));
  EXPECT_EQ(main.seen,
            (Seen{"summary", "warning otlp_queue_full: 5 more lost, 5 in all", "summary", "summary",
                  "summary", "warning otlp_queue_full: 2 more lost, 7 in all", "summary"}));
  EXPECT_EQ(lossy.seen, (Seen{"finish"})) << "before the last summary only";
}

// An agent restarts its trace with the same outputs: each loss is told by one of the two traces.
TEST(Tee, TheTraceAfterTellsWhatWasLostSinceTheLastSummary) {
  Recorder main, lossy;
  SummaryRecord last;
  {
    TeeSink tee(main, {}, {&lossy});
    lossy.lost = {{"output_full", 5}};
    lossy.stay_open();
    ASSERT_TRUE(tee.summary(last));
    EXPECT_EQ(main.last_summary.dropped, (std::map<std::string, uint64_t>{{"output_full", 5}}));
    EXPECT_EQ(lossy.seen, Seen()) << "it goes on";
  }
  main.seen.clear();
  lossy.lost["output_full"] = 7;  // nobody was there to tell
  TeeSink tee(main, {}, {&lossy});
  SummaryRecord interim;
  interim.final = false;
  ASSERT_TRUE(tee.summary(interim));
  EXPECT_EQ(main.last_summary.dropped, (std::map<std::string, uint64_t>{{"output_full", 2}}));
  ASSERT_TRUE(tee.summary(interim));
  EXPECT_EQ(main.seen, (Seen{"warning output_full: 2 more lost, 2 in all", "summary", "summary"}));
  ASSERT_TRUE(tee.summary(last));
  EXPECT_EQ(lossy.seen, (Seen{"finish"})) << "this time it is the end";

  lossy.stay_open();
  TeeSink third(main, {}, {&lossy});
  ASSERT_TRUE(third.summary(last));
  EXPECT_EQ(main.last_summary.dropped, (std::map<std::string, uint64_t>()));
}

}  // namespace
}  // namespace looptrace
