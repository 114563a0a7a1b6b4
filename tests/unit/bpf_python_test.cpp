// SPDX-License-Identifier: Apache-2.0
// The BPF walk of CPython frames, compiled for user space, over objects made by hand: the moments and builds
// that a running interpreter shows too seldom to be relied upon.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>

#include "bpf_user_memory.h"
#include "looptrace.h"

namespace {

#include "python.bpf.h"

template <typename T>
u64 address(T& object) {
  return reinterpret_cast<u64>(&object);
}

using Object = std::array<u64, 32>;

class PythonWalk : public testing::Test {
 protected:
  void SetUp() override {
    unreadable_from = unreadable_to = 0;
    code_[1] = outer_code_[1] = address(type_);
    code_[2] = 7, outer_code_[2] = 9;  // first lines
  }

  // Members where 3.12 has them, more or less: the walk goes by the offsets alone.
  lt_py_config config_of(int minor) const {
    lt_py_config c{};
    c.minor = minor;
    c.cframe = minor == 11 || minor == 12 ? 8 : -1;
    c.frame = 0;
    c.f_code = 0, c.f_previous = 8, c.f_instr = 16, c.f_owner = 30;
    c.co_firstlineno = 16, c.co_filename = 40;
    c.code_type = address(type_);
    c.code_mask = minor >= 14 ? ~u64{3} : ~u64{0};
    c.task.running = -1, c.task.name = -1, c.task.ob_type = 8;
    return c;
  }

  // The code objects' first lines, innermost first.
  std::vector<u32> lines(const lt_py_config& config, u64 state) {
    std::vector<u32> found;
    status_ = py_first_frame(&walk_, &config, state);
    lt_py_frame frame{};
    names_.clear();
    while (walk_.frame && found.size() < 9 && py_read_frame(&walk_, &frame)) {
      found.push_back(frame.firstlineno);
      names_.push_back(frame.names);
    }
    return found;
  }

  Object type_{}, code_{}, outer_code_{}, garbage_{};
  alignas(4096) Object frame_{};  // a page is there or is not
  alignas(4096) Object outer_frame_{};
  py_walk walk_{};
  int status_ = -1;
  std::vector<uint16_t> names_;
};

TEST_F(PythonWalk, ReachesTheOutermostFrame) {
  Object state{address(frame_)};
  frame_[0] = address(code_), frame_[1] = address(outer_frame_);
  outer_frame_[0] = address(outer_code_);
  EXPECT_EQ(lines(config_of(13), address(state)), (std::vector<u32>{7, 9}));
}

// 3.11 and 3.12 link a _PyCFrame on the C stack before they fill it.
TEST_F(PythonWalk, AHalfFilledCFrameIsPassedOver) {
  Object inner{}, outer{}, state{0, address(inner)};
  frame_[0] = address(code_);
  outer[0] = address(frame_);
  inner[1] = address(outer);
  for (const u64 rubbish : {address(garbage_), u64{1}, u64{0xdeadbeef}, address(code_)}) {
    inner[0] = rubbish;
    EXPECT_EQ(lines(config_of(12), address(state)), (std::vector<u32>{7})) << rubbish;
    EXPECT_EQ(status_, LT_PY_END) << rubbish;
  }
  inner[0] = address(frame_);
  EXPECT_EQ(lines(config_of(12), address(state)), (std::vector<u32>{7})) << "filled";
}

// Where the thread's frame or its code cannot be read, it may be one: the frames behind it are not all.
TEST_F(PythonWalk, FramesThatAreNotThereAreNotTakenForAHalfFilledCFrame) {
  Object inner{address(frame_)}, outer{address(outer_frame_)}, state{0, address(inner)};
  inner[1] = address(outer);
  frame_[0] = address(code_), frame_[1] = address(outer_frame_);
  outer_frame_[0] = address(outer_code_);
  EXPECT_EQ(lines(config_of(12), address(state)), (std::vector<u32>{7, 9}));
  EXPECT_EQ(status_, LT_PY_END);
  for (const u64 away : {address(frame_), address(code_) + 8}) {
    unreadable_from = away, unreadable_to = away + 8;
    EXPECT_EQ(lines(config_of(12), address(state)), (std::vector<u32>{9}));
    EXPECT_EQ(status_, LT_PY_FAULT);
  }
}

TEST_F(PythonWalk, ReferencesAreTaggedFrom314On) {
  Object state{address(frame_)};
  frame_[0] = address(code_) | 1, frame_[1] = address(outer_frame_);
  outer_frame_[0] = address(outer_code_) | 3;
  EXPECT_EQ(lines(config_of(14), address(state)), (std::vector<u32>{7, 9}));
}

TEST_F(PythonWalk, AShimsCodeIsNotLookedAt) {
  Object state{address(frame_)};
  frame_[0] = address(code_);
  frame_[3] = u64{3} << 48;  // the owner, byte 30
  EXPECT_EQ(lines(config_of(13), address(state)), (std::vector<u32>{0}));
}

TEST_F(PythonWalk, MemoryThatIsNotThereEndsIt) {
  Object state{address(frame_)};
  frame_[0] = address(code_), frame_[1] = address(outer_frame_);
  unreadable_from = address(outer_frame_), unreadable_to = unreadable_from + 8;
  EXPECT_EQ(lines(config_of(13), address(state)), (std::vector<u32>{7}));
  EXPECT_NE(walk_.frame, 0u) << "and it knows that there is more";
  unreadable_from = address(state), unreadable_to = unreadable_from + 8;
  EXPECT_TRUE(lines(config_of(13), address(state)).empty());
  EXPECT_EQ(status_, LT_PY_FAULT);
}

// From 3.11 on callers lie below, in the same chunk of the interpreter's stack, which may begin a mapping.
TEST_F(PythonWalk, FramesThatLieTogetherAreReadTogether) {
  alignas(4096) static std::array<std::array<u64, 12>, 128> stack;  // of 96 bytes: some cross a page's end
  const size_t count = 9;
  for (size_t i = 0; i < stack.size(); ++i) {
    stack[i] = {};
    stack[i][0] = address(code_);
  }
  unreadable_to = address(stack), unreadable_from = unreadable_to - 4096;
  Object state{};
  for (size_t top = count - 1; top < stack.size(); ++top) {
    for (size_t i = 0; i < count; ++i) stack[top - i][1] = i + 1 < count ? address(stack[top - i - 1]) : 0;
    state[0] = address(stack[top]);
    reads = 0;
    ASSERT_EQ(lines(config_of(13), address(state)), std::vector<u32>(count, 7)) << top;
    // The state, the nine code objects, and the frames: in one read, in two where a page ends among them,
    // and in three where that is in the middle of one.
    ASSERT_LE(reads, 1 + 9 + 3) << top;
  }
}

TEST_F(PythonWalk, AFrameThatIsItsOwnCallerDoesNotHoldItForever) {
  Object state{address(frame_)};
  frame_[0] = address(code_), frame_[1] = address(frame_);
  EXPECT_EQ(lines(config_of(13), address(state)).size(), 9u) << "the caller's bound";
}

// Another code object that comes to lie at the same address has the same first line as often as not.
TEST_F(PythonWalk, CodeObjectsAreToldApartByTheirNames) {
  Object state{address(frame_)};
  frame_[0] = address(code_);
  const auto seen = [&](const lt_py_config& config) {
    EXPECT_EQ(lines(config, address(state)), (std::vector<u32>{7}));
    return names_.at(0);
  };
  const auto before = seen(config_of(13));
  EXPECT_EQ(before, lt_py_names(0, 0, 0));
  for (const size_t word : {5, 6, 7}) {
    code_[word] = 0x7000 + 64 * word;
    EXPECT_EQ(seen(config_of(13)), lt_py_names(code_[5], code_[6], code_[7]));
  }
  EXPECT_NE(seen(config_of(13)), before);
  lt_py_config odd = config_of(13);  // where the first line is the upper half of its word
  odd.co_firstlineno = 20;
  code_[2] = u64{7} << 32;
  EXPECT_EQ(seen(odd), lt_py_names(code_[5], code_[6], code_[7]));
  unreadable_from = address(code_) + 40, unreadable_to = unreadable_from + 8;
  EXPECT_EQ(lines(odd, address(state)), (std::vector<u32>{0}));
  EXPECT_EQ(names_.at(0), 0) << "not known";
}

// From 3.14 on the thread state names the Task; a free-threaded build's objects have a larger head.
TEST_F(PythonWalk, TheRunningTask) {
  for (const int head : {16, 32}) {
    SCOPED_TRACE(head);
    const size_t own = static_cast<size_t>(head) / 8;
    Object task{}, coroutine{}, name{}, state{0, 0, 0, address(task)};
    task[own - 1] = 0x7000;
    task[own] = address(coroutine), task[own + 1] = address(name);
    coroutine[own] = address(code_);
    name[0] = 42;
    lt_py_config config = config_of(14);
    config.task = {};
    config.task.running = 24, config.task.ob_type = head - 8;
    config.task.coro = head, config.task.name = head + 8, config.task.coro_code = head;
    ASSERT_EQ(py_first_frame(&walk_, &config, address(state)), LT_PY_END);
    EXPECT_TRUE(py_has_task(&walk_));
    lt_py_task seen{};
    py_find_task(&walk_, &seen);
    EXPECT_EQ(seen.task, address(task));
    EXPECT_EQ(seen.task_type, 0x7000u);
    EXPECT_EQ(seen.coro_code, address(code_));
    EXPECT_EQ(seen.name_bytes, static_cast<u32>(LT_TASK_NAME_LEN));
    EXPECT_EQ(seen.name_object[0], 42);
    state[3] = 0;
    py_find_task(&walk_, &seen);
    EXPECT_EQ(seen.task, 0u) << "none runs";
    EXPECT_EQ(seen.name_bytes, 0u);
  }
}

// What Runner.run() runs is the frame that it called, past a shim; the outermost's counts, but not before
// _execute()'s.
TEST_F(PythonWalk, TheHandlerOfAGeneratorThatTornadoRuns) {
  std::array<Object, 5> codes{}, frames{};
  Object handler{0, 0x7000}, other{0, 0x8000}, first{0, 0x9000}, state{address(frames[0])};
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i][1] = address(type_);
    frames[i][0] = address(codes[i]);
    frames[i][1] = i + 1 < frames.size() ? address(frames[i + 1]) : 0;
    frames[i][4] = address(other);
  }
  frames[2][4] = address(handler), frames[4][4] = address(first);
  frames[3][3] = u64{3} << 48;  // a shim
  for (const size_t run : {1, 4}) {
    lt_py_config config = config_of(13);
    config.task.runner = {address(codes[run]), 32, 0};
    lines(config, address(state));
    ASSERT_TRUE(py_has_task(&walk_));
    lt_py_task seen{};
    py_find_task(&walk_, &seen);
    EXPECT_EQ(seen.handler_type, run == 4 ? 0x7000u : 0x8000u) << run;
    config.task.handler = {address(codes[4]), 32, 0};
    lines(config, address(state));
    py_find_task(&walk_, &seen);
    EXPECT_EQ(seen.handler_type, 0x9000u) << run;
  }
  lt_py_config config = config_of(13);
  config.task.runner = {address(codes[1]), 32, 0};
  frames[4][0] = address(codes[1]);  // another one further out
  lines(config, address(state));
  lt_py_task seen{};
  py_find_task(&walk_, &seen);
  EXPECT_EQ(seen.handler_type, 0x7000u);
}

}  // namespace
