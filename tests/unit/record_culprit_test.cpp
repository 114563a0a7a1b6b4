// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "record/culprit.h"

namespace looptrace {
namespace {

Frame frame(const std::string& function, FrameOrigin origin, FrameKind kind = FrameKind::native) {
  Frame f;
  f.function = function;
  f.origin = origin;
  f.kind = kind;
  return f;
}

constexpr auto kOwn = FrameOrigin::application;
constexpr auto kLibrary = FrameOrigin::library;
constexpr auto kRuntime = FrameOrigin::runtime;

Stack stack(StackState state, uint64_t weight_ns, std::vector<Frame> frames) {
  Stack s;
  s.state = state;
  s.weight_ns = weight_ns;
  s.frames = std::move(frames);
  return s;
}

std::string culprit_of(const Stall& stall) {
  const auto place = choose_culprit(stall);
  return place ? stall.stacks[place->stack].frames[place->frame].function : "none";
}

TEST(Culprit, InnermostFrameOfTheApplication) {
  Stall stall;
  stall.cause = Cause::network;
  stall.stacks = {stack(StackState::blocked, 10,
                        {frame("poll", kRuntime), frame("pq_wait", kLibrary), frame("run_query", kOwn),
                         frame("handle", kOwn), frame("main", kOwn)})};
  EXPECT_EQ(culprit_of(stall), "run_query");
}

TEST(Culprit, WithoutApplicationCodeTheInnermostNamedFrame) {
  Stall stall;
  stall.cause = Cause::network;
  stall.stacks = {stack(StackState::blocked, 10,
                        {frame("", kLibrary), frame("send_all", kLibrary), frame("run", kRuntime)})};
  EXPECT_EQ(culprit_of(stall), "send_all");
}

TEST(Culprit, MainIsNamedWhereItIsTheApplications) {
  Stall stall;
  stall.cause = Cause::sleep;
  stall.stacks = {stack(StackState::blocked, 10,
                        {frame("nanosleep", kRuntime), frame("main", kOwn, FrameKind::python),
                         frame("<module>", kOwn, FrameKind::python)})};
  EXPECT_EQ(culprit_of(stall), "main");
}

TEST(Culprit, NeverAKernelFrame) {
  Stall stall;
  stall.cause = Cause::file;
  stall.stacks = {
      stack(StackState::blocked, 10,
            {frame("io_schedule", kOwn, FrameKind::kernel), frame("vfs_read", kRuntime, FrameKind::kernel)})};
  EXPECT_EQ(culprit_of(stall), "none");
  stall.stacks[0].frames.push_back(frame("load", kOwn));
  EXPECT_EQ(culprit_of(stall), "load");
}

TEST(Culprit, OnlyStacksOfThePartThatTheCauseNames) {
  Stall stall;
  stall.stacks = {stack(StackState::on_cpu, 90, {frame("burn", kOwn)}),
                  stack(StackState::blocked, 50, {frame("wait", kOwn)}),
                  stack(StackState::runqueue, 20, {frame("ready", kOwn)})};
  stall.cause = Cause::lock;
  EXPECT_EQ(culprit_of(stall), "wait");
  stall.cause = Cause::gc;
  EXPECT_EQ(culprit_of(stall), "burn");
  stall.cause = Cause::throttled;
  EXPECT_EQ(culprit_of(stall), "ready");
  stall.stacks.pop_back();
  EXPECT_EQ(culprit_of(stall), "none");
}

TEST(Culprit, HeaviestFirstWhateverTheOrder) {
  Stall stall;
  stall.cause = Cause::cpu;
  stall.stacks = {stack(StackState::on_cpu, 1, {frame("light", kOwn)}),
                  stack(StackState::on_cpu, 9, {frame("heavy", kOwn)})};
  EXPECT_EQ(culprit_of(stall), "heavy");
}

TEST(Culprit, StacksOfOneFunctionCountTogether) {
  Stall stall;
  stall.cause = Cause::cpu;
  const Frame module = frame("<module>", kOwn, FrameKind::python);
  const Frame handler = frame("handler", kOwn, FrameKind::python);
  stall.stacks = {stack(StackState::on_cpu, 4, {frame("loads", kRuntime), module}),
                  stack(StackState::on_cpu, 3, {frame("match", kRuntime), handler, module}),
                  stack(StackState::on_cpu, 3, {frame("sub", kRuntime), frame("match", kRuntime), handler})};
  EXPECT_EQ(culprit_of(stall), "handler");
  EXPECT_EQ(choose_culprit(stall)->stack, 1u);
  stall.stacks[2].frames[2].file = "other.py";  // another function of that name
  EXPECT_EQ(culprit_of(stall), "<module>");
}

TEST(Culprit, TheLineWithMostOfTheFunctionsTime) {
  const auto at = [](uint64_t weight_ns, const std::string& leaf, int line) {
    Frame own = frame("parse_body", kOwn, FrameKind::python);
    own.line = line;
    return stack(StackState::on_cpu, weight_ns, {frame(leaf, kRuntime), own});
  };
  Stall stall;
  stall.cause = Cause::cpu;
  stall.stacks = {at(30, "join", 199), at(20, "loads", 200), at(5, "join", 199), at(25, "scan", 200)};
  const auto place = choose_culprit(stall);
  ASSERT_TRUE(place);
  EXPECT_EQ(stall.stacks[place->stack].frames[place->frame].line, 200);
  EXPECT_EQ(place->stack, 3u) << "the heaviest of those";
}

TEST(Culprit, StaticFunctionsOfAStrippedProgramAreToldApart) {
  Stall stall;
  stall.cause = Cause::cpu;
  Frame stripped = frame("", kOwn);
  stripped.module = "server";
  for (const auto& [offset, weight] : {std::pair(0x40, 4), std::pair(0x80, 3), std::pair(0xc0, 3)}) {
    stripped.offset = static_cast<uint64_t>(offset);
    stall.stacks.push_back(stack(StackState::on_cpu, static_cast<uint64_t>(weight), {stripped}));
  }
  EXPECT_EQ(choose_culprit(stall)->stack, 0u);
}

TEST(Culprit, AStackOfNamelessFramesPassesOn) {
  Stall stall;
  stall.cause = Cause::cpu;
  stall.stacks = {stack(StackState::on_cpu, 9, {frame("", kLibrary)}),
                  stack(StackState::on_cpu, 1, {frame("seen", kLibrary)})};
  EXPECT_EQ(culprit_of(stall), "seen");
}

TEST(Culprit, AStackOfAWaitWithTheCauseBeforeAHeavierOneOfAnother) {
  Stall stall;
  stall.cause = Cause::network;
  stall.stacks = {stack(StackState::blocked, 40, {frame("read_file", kOwn)}),
                  stack(StackState::blocked, 30, {frame("ask", kOwn)})};
  Wait file, network;
  file.cause = Cause::file;
  file.stack = 0;
  network.cause = Cause::network;
  network.stack = 1;
  stall.waits = {network, file};
  EXPECT_EQ(culprit_of(stall), "ask");
  stall.waits[1].cause = Cause::network;
  EXPECT_EQ(culprit_of(stall), "read_file");
}

TEST(Culprit, AStrippedProgramIsNamedByItsModule) {
  Stall stall;
  stall.cause = Cause::cpu;
  Frame stripped = frame("", kOwn);
  stripped.module = "server";
  stripped.offset = 0x40;
  stall.stacks = {stack(StackState::on_cpu, 9, {frame("memcpy", kRuntime), stripped, frame("_start", kOwn)})};
  EXPECT_EQ(choose_culprit(stall)->frame, 1u);
  stall.stacks[0].frames.erase(stall.stacks[0].frames.begin() + 1);
  EXPECT_EQ(culprit_of(stall), "memcpy");  // start-up code is nobody's
}

TEST(Culprit, NothingToChooseFrom) {
  EXPECT_FALSE(choose_culprit(Stall()));
  Stall bad;
  bad.cause = Cause::network;
  Wait wait;
  wait.stack = 7;  // points nowhere
  bad.waits = {wait};
  EXPECT_FALSE(choose_culprit(bad));
}

}  // namespace
}  // namespace looptrace
