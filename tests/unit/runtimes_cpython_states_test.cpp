// SPDX-License-Identifier: Apache-2.0
// Which states of 3.8 and 3.9 are a thread's, over structures made by hand: these versions keep nothing on
// the native stack, and an interpreter that another thread made is told by the number of its frames alone.
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <vector>

#include "runtimes/cpython/thread_states.h"

namespace looptrace::cpython {
namespace {

template <typename T>
uint64_t address(T& object) {
  return reinterpret_cast<uint64_t>(&object);
}

class ThreadStatesOf : public testing::TestWithParam<int> {
 protected:
  using Words = std::array<uint64_t, 64>;

  // An interpreter with one thread, newest last: the address of its state.
  uint64_t add(size_t frames, bool own) {
    uint64_t frame = 0;
    for (size_t i = 0; i < frames; ++i) {
      Words& made = objects_.emplace_back();
      made[static_cast<size_t>(o_.frame.previous) / 8] = frame;
      frame = address(made);
    }
    Words& state = objects_.emplace_back();
    state[static_cast<size_t>(o_.thread.frame) / 8] = frame;
    state[static_cast<size_t>(o_.thread.thread_id) / 8] = own ? pthread_self() : address(other_thread_);
    Words& interpreter = objects_.emplace_back();
    uint64_t& head = runtime_[static_cast<size_t>(o_.runtime.interpreters_head) / 8];
    interpreter[static_cast<size_t>(o_.interpreter.next) / 8] = head;
    interpreter[static_cast<size_t>(o_.interpreter.threads_head) / 8] = address(state);
    head = address(interpreter);
    return address(state);
  }

  std::vector<uint64_t> found(size_t evals) {
    std::vector<uint64_t> states;
    for (const uint64_t state :
         find_thread_states(RemoteMemory(getpid()), o_, address(runtime_), getpid(), {0, evals}))
      if (state) states.push_back(state);
    return states;
  }

  const Offsets o_ = *offsets_of(GetParam());
  Words runtime_{}, other_thread_{};
  std::deque<Words> objects_;  // which stay where they are
};

using States = std::vector<uint64_t>;

TEST_P(ThreadStatesOf, TheMainInterpretersAlone) {
  const uint64_t main = add(3, true);
  add(4, false);
  EXPECT_EQ(found(3), States{main});
  EXPECT_EQ(found(4), States{main}) << "a function is about to begin";
}

TEST_P(ThreadStatesOf, OneThatAnotherThreadMadeByItsFrames) {
  const uint64_t main = add(3, true), fits = add(4, false);
  add(9, false);
  EXPECT_EQ(found(7), (States{fits, main}));
  EXPECT_EQ(found(8), (States{fits, main})) << "a function is about to begin";
  EXPECT_EQ(found(12).size(), 2u);
  EXPECT_EQ(found(10), States{main}) << "none fits";
}

// Any of them may be run by this thread, the others by theirs: then none is told, and the capture says that
// frames are missing.
TEST_P(ThreadStatesOf, OfSeveralThatFitNoneIsTaken) {
  const uint64_t main = add(3, true);
  add(4, false);
  const uint64_t longer = add(5, false);
  add(4, false);
  EXPECT_EQ(found(7), States{main}) << "two of the same number";
  EXPECT_EQ(found(8), States{main}) << "or one less and about to begin a function";
  EXPECT_EQ(found(9), (States{longer, main}));
}

TEST_P(ThreadStatesOf, OfThreeOfItsOwnOnlyTheMainInterpreters) {
  const uint64_t main = add(3, true);
  add(4, true);
  add(5, true);
  EXPECT_EQ(found(12), States{main});
}

INSTANTIATE_TEST_SUITE_P(CPython, ThreadStatesOf, testing::Values(8, 9),
                         [](const auto& info) { return "3_" + std::to_string(info.param); });

}  // namespace
}  // namespace looptrace::cpython
