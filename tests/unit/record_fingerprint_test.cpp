// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "record/fingerprint.h"

namespace looptrace {
namespace {

Frame python(const std::string& function, const std::string& file, int line) {
  Frame f;
  f.kind = FrameKind::python;
  f.function = function;
  f.file = file;
  f.line = line;
  return f;
}

Frame native(const std::string& function, uint64_t offset) {
  Frame f;
  f.function = function;
  f.module = "libc.so.6";
  f.build_id = "abc123";
  f.offset = offset;
  f.origin = FrameOrigin::runtime;
  return f;
}

Stall sample() {
  Stall stall;
  stall.process.runtime = "cpython 3.11.2";
  stall.cause = Cause::network;
  Stack stack;
  stack.state = StackState::blocked;
  stack.weight_ns = 5;
  stack.frames = {native("poll", 1), python("run_query", "/srv/app.py", 7),
                  python("handle", "/srv/app.py", 20), native("start", 2)};
  stall.stacks = {stack};
  return stall;
}

std::string print(const Stall& stall) { return fingerprint(stall, choose_culprit(stall)); }

// A change of this value breaks every store of findings: it takes a new major version of the record.
TEST(Fingerprint, IsFixed) { EXPECT_EQ(print(sample()), "2ef2ecdc8800367c"); }

TEST(Fingerprint, SameOnOtherHosts) {
  const std::string before = print(sample());
  Stall stall = sample();
  stall.process.pid = 999;
  stall.process.runtime = "cpython 3.11.9";
  stall.stacks[0].frames[1].file = "/opt/release-7/app.py";
  stall.stacks[0].frames[1].line = 9;
  stall.stacks[0].frames[3].offset = 0x7f00;
  stall.stacks[0].weight_ns = 77;
  EXPECT_EQ(print(stall), before);
  // Where the kernel is another, or debug data is missing.
  Frame kernel;
  kernel.kind = FrameKind::kernel;
  kernel.function = "do_poll";
  Frame inlined = native("small_helper", 4);
  inlined.kind = FrameKind::inlined;
  stall.stacks[0].frames.insert(stall.stacks[0].frames.begin() + 3, inlined);
  stall.stacks[0].frames.insert(stall.stacks[0].frames.begin(), kernel);
  EXPECT_EQ(print(stall), before);
}

TEST(Fingerprint, SameWhateverLiesInsideTheCulprit) {
  Stall stall = sample();
  stall.stacks[0].frames[0] = native("ppoll", 3);
  EXPECT_EQ(print(stall), print(sample()));
}

TEST(Fingerprint, SameAtAnyDepthOfARecursion) {
  Stall stall = sample();
  stall.stacks[0].frames.insert(stall.stacks[0].frames.begin() + 2, 5, python("handle", "/srv/app.py", 21));
  EXPECT_EQ(print(stall), print(sample()));
}

TEST(Fingerprint, DiffersByWhatMatters) {
  const std::string before = print(sample());
  Stall stall = sample();
  stall.cause = Cause::file;
  EXPECT_NE(print(stall), before);
  stall = sample();
  stall.process.runtime = "node 20.1.0";
  EXPECT_NE(print(stall), before);
  stall = sample();
  stall.stacks[0].frames[1].function = "run_query2";
  EXPECT_NE(print(stall), before);
  stall = sample();
  stall.stacks[0].frames[2].file = "/srv/other.py";
  EXPECT_NE(print(stall), before);
  stall = sample();
  stall.stacks[0].frames[3].build_id = "def456";
  EXPECT_NE(print(stall), before);
  // Two fields must not run into each other.
  stall = sample();
  stall.stacks[0].frames[1].file = "app.pyr";
  stall.stacks[0].frames[1].function = "un_query";
  EXPECT_NE(print(stall), before);
}

TEST(Fingerprint, NamelessCodeCountsByItsOffsetInAFileOnly) {
  Stall stall = sample();
  stall.stacks[0].frames[3].function.clear();
  const std::string at_2 = print(stall);
  stall.stacks[0].frames[3].offset = 3;
  EXPECT_NE(print(stall), at_2);
  // JIT code: an address that differs in each run.
  stall.stacks[0].frames[3].build_id.clear();
  stall.stacks[0].frames[3].module.clear();
  const std::string jit = print(stall);
  stall.stacks[0].frames[3].offset = 0x7fff0000;
  EXPECT_EQ(print(stall), jit);
}

TEST(Fingerprint, SixteenDigitsEvenOfNothing) {
  const std::string text = fingerprint(Stall(), std::nullopt);
  EXPECT_EQ(text.size(), 16u);
  EXPECT_EQ(text.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(fingerprint(Stall(), CulpritPlace{9, 9}), text);
}

}  // namespace
}  // namespace looptrace
