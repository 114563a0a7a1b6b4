// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cerrno>
#include <deque>
#include <vector>

#include "agent/reloads.h"

namespace looptrace {
namespace {

AgentConfig named(const std::string& name) {
  AgentConfig config;
  config.windows.seed = name;
  return config;
}

const Error kNoPort{"listen on port 80"};

/// Runs that end as they are told, and the names of those that were run with what they were told.
class Runs {
 public:
  struct Step {
    Result<void> ended;
    bool worked = true;
    std::string next;  // empty: the agent was told to end
  };
  explicit Runs(std::deque<Step> steps) : steps_(std::move(steps)) {}

  Result<void> go(const std::string& first) {
    return run_through_reloads(named(first), [this](AgentConfig config, const std::string& trouble) {
      seen.push_back(config.windows.seed + (trouble.empty() ? "" : ": " + trouble));
      if (steps_.empty()) ADD_FAILURE() << "one run too many";
      const Step step = steps_.empty() ? Step{} : steps_.front();
      if (!steps_.empty()) steps_.pop_front();
      RunOutcome outcome{step.ended, step.worked, std::move(config), std::nullopt};
      if (!step.next.empty()) outcome.next = named(step.next);
      return outcome;
    });
  }
  std::vector<std::string> seen;

 private:
  std::deque<Step> steps_;
};

using Seen = std::vector<std::string>;

TEST(AgentReloads, OneConfigurationFollowsTheOther) {
  Runs runs({{{}, true, "b"}, {{}, true, "c"}, {{}, true, ""}});
  EXPECT_TRUE(runs.go("a"));
  EXPECT_EQ(runs.seen, (Seen{"a", "b", "c"}));
}

TEST(AgentReloads, OneThatDoesNotWorkMakesWayForTheOneBefore) {
  Runs runs({{{}, true, "b"}, {kNoPort, false, ""}, {{}, true, "c"}, {{}, true, ""}});
  EXPECT_TRUE(runs.go("a"));
  EXPECT_EQ(runs.seen, (Seen{"a", "b", "a: listen on port 80", "c"})) << "told once";
}

TEST(AgentReloads, TheFirstOneMustWork) {
  Runs runs({{kNoPort, false, ""}});
  const auto ended = runs.go("a");
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().what, kNoPort.what);
  EXPECT_EQ(runs.seen, Seen{"a"});
}

TEST(AgentReloads, WhereTheOneBeforeNoLongerWorksThatIsTheEnd) {
  Runs runs({{{}, true, "b"}, {kNoPort, false, ""}, {Error{"load"}, false, ""}});
  const auto ended = runs.go("a");
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().what, "load");
  EXPECT_EQ(runs.seen, (Seen{"a", "b", "a: listen on port 80"})) << "not to and fro";
}

TEST(AgentReloads, OneThatWorkedAndFailsLaterIsTheEnd) {
  Runs runs({{{}, true, "b"}, {Error{"read the ring"}, true, ""}});
  EXPECT_FALSE(runs.go("a"));
  EXPECT_EQ(runs.seen, (Seen{"a", "b"}));
}

TEST(AgentReloads, AReaderThatLeavesIsAQuietEnd) {
  Runs runs({{{}, true, "b"}, {Error{"write", EPIPE}, false, ""}});
  EXPECT_TRUE(runs.go("a"));
  EXPECT_EQ(runs.seen, (Seen{"a", "b"}));
}

}  // namespace
}  // namespace looptrace
