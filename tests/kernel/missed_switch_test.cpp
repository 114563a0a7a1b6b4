// SPDX-License-Identifier: Apache-2.0
// Some kernels are silent when a thread comes onto its CPU, once in some thousand times. Here the slot is put
// back to what it was before, so that this happens for certain.
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <new>

#include "bpf/engine.h"
#include "harness.h"

namespace looptrace::test {
namespace {

// Short: the loop shall not be preempted meanwhile, which mends the slot, too.
constexpr uint64_t kStallNs = 8'000'000;

struct Shared {
  std::atomic<bool> awake{false}, go{false};
};

/// Polls a pipe. 's' is a stall on a CPU, which says when it began and waits for leave to begin.
[[noreturn]] void loop(int input, Shared& shared) {
  const int set = epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(set, EPOLL_CTL_ADD, input, &event);
  for (;;) {
    char what = 0;
    if (epoll_wait(set, &event, 1, -1) < 0 || read(input, &what, 1) != 1) _exit(1);
    if (what != 's') continue;
    shared.awake = true;
    while (!shared.go) continue;
    for (const uint64_t end = monotonic_ns() + kStallNs; monotonic_ns() < end;) continue;
  }
}

/// Where there is more than one CPU.
void run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

class MissedSwitch : public testing::Test {
 protected:
  ~MissedSwitch() override {
    if (CPU_COUNT(&cpus_)) sched_setaffinity(0, sizeof(cpus_), &cpus_);
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
  }

  void start() {
    ASSERT_EQ(sched_getaffinity(0, sizeof(cpus_), &cpus_), 0);
    ASSERT_EQ(pipe(pipe_), 0);
    shared_ =
        new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared;
    pid_ = fork();
    if (pid_ == 0) {
      run_on(0);
      loop(pipe_[0], *shared_);
    }
    run_on(1);
    EngineOptions options;
    options.threshold_ns = kStallNs / 2;
    options.hook = HookPolicy::always;
    auto engine = Engine::load(options);
    ASSERT_TRUE(engine) << engine.error().message();
    engine_ = std::move(*engine);
    ASSERT_TRUE(engine_->add_target(static_cast<uint32_t>(pid_)));
    ASSERT_TRUE(engine_->attach());
    for (int i = 0; i < 20; ++i) send('.');
    for (uint32_t i = 0; i < engine_->slot_count(); ++i)
      if (engine_->slot(i).tid == static_cast<uint32_t>(pid_)) slot_ = i;
    ASSERT_TRUE(engine_->slot(slot_).confirmed);
  }

  void send(char what) {
    ASSERT_EQ(write(pipe_[1], &what, 1), 1);
    usleep(2000);
  }

  std::unique_ptr<Engine> engine_;
  Shared* shared_ = nullptr;
  uint32_t slot_ = 0;

 private:
  int pipe_[2] = {-1, -1};
  pid_t pid_ = -1;
  cpu_set_t cpus_{};  // where the tests ran before, none if that is not known
};

TEST_F(MissedSwitch, WithoutAKnownArrivalLeavesTheIterationUnconfirmed) {
  LOOPTRACE_NEEDS_ROOT();
  ASSERT_NO_FATAL_FAILURE(start());
  lt_slot& slot = engine_->slot(slot_);
  const lt_stats& stats = engine_->stats(slot_);
  engine_->set_threshold(kStallNs);
  uint64_t stalls = 0;
  for (bool in_time = false; !in_time;) {
    ASSERT_LT(stalls, 10u) << "always too late";
    shared_->awake = shared_->go = false;
    send('s');
    while (!shared_->awake) usleep(100);
    const uint64_t sequence = slot.it.seq;
    shared_->go = true;
    usleep(kStallNs / 1000 * 3 / 4);  // no more than a quarter is certain in the end
    slot.running = 0;
    slot.clock_skew = 0;  // as before the first switch-in that is seen
    in_time = slot.it.seq == sequence;
    if (!in_time) stalls = stats.stalls;
  }
  wait_until([&] { return stats.unconfirmed > 0 || stats.stalls > stalls; }, 5);
  EXPECT_EQ(stats.unconfirmed, 1u);
  EXPECT_EQ(stats.stalls, stalls);
}

TEST_F(MissedSwitch, BeforeAPollIsMadeUpForByTheSchedulersStamps) {
  LOOPTRACE_NEEDS_ROOT();
  ASSERT_NO_FATAL_FAILURE(start());
  lt_slot& slot = engine_->slot(slot_);
  for (uint64_t stalls = 1; stalls <= 20; ++stalls) {
    shared_->awake = shared_->go = false;
    send('s');
    while (!shared_->awake) usleep(100);
    // Or this kernel was silent just now.
    ASSERT_TRUE(slot.phase == LT_PHASE_BUSY || !slot.running) << slot.phase;
    slot.phase = LT_PHASE_IDLE;
    slot.running = 0;
    slot.unsettled = LT_SETTLED;
    shared_->go = true;
    // Beside others the loop may have to wait for its CPU.
    wait_until([&] { return engine_->stats(slot_).stalls >= stalls; }, 5, std::chrono::milliseconds(1));
    ASSERT_EQ(engine_->stats(slot_).stalls, stalls);
    ASSERT_GE(engine_->stats(slot_).stall_ns, stalls * kStallNs);
  }
  EXPECT_GT(engine_->drops()[LT_DROP_SWITCH_HEALED], 0u);
}

}  // namespace
}  // namespace looptrace::test
