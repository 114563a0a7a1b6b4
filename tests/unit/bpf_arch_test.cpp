// SPDX-License-Identifier: Apache-2.0
// System call numbers against the C library's, the layout that both compilers must agree on, and each kind
// of unwind step.
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cstddef>

#include "arch.h"
#include "unwind_rows.h"

namespace {

static_assert(LT_NR_poll == SYS_poll && LT_NR_select == SYS_select && LT_NR_nanosleep == SYS_nanosleep);
static_assert(LT_NR_wait4 == SYS_wait4 && LT_NR_futex == SYS_futex &&
              LT_NR_clock_nanosleep == SYS_clock_nanosleep);
static_assert(LT_NR_epoll_wait == SYS_epoll_wait && LT_NR_waitid == SYS_waitid &&
              LT_NR_pselect6 == SYS_pselect6);
static_assert(LT_NR_ppoll == SYS_ppoll && LT_NR_epoll_pwait == SYS_epoll_pwait);
static_assert(LT_NR_io_uring_enter == SYS_io_uring_enter);

static_assert(sizeof(lt_hdr) == 32 && sizeof(lt_target) == 96 && sizeof(lt_row) == 8 &&
              sizeof(lt_module) == 40);
static_assert(offsetof(lt_stall, it) % 8 == 0 && offsetof(lt_slot, it) % 8 == 0 &&
              offsetof(lt_capture, data) % 8 == 0);
static_assert(offsetof(lt_iteration, top) % 8 == 0 && offsetof(lt_iteration, waits) % 8 == 0);
static_assert(sizeof(lt_stats) % 8 == 0 && sizeof(lt_slot) % 8 == 0);

TEST(Arch, PollsAreKnownByTheirNumbers) {
  EXPECT_EQ(lt_poll_kind(SYS_epoll_wait, 0, 0), static_cast<__u32>(LT_POLL_EPOLL));
  EXPECT_EQ(lt_poll_kind(SYS_epoll_pwait, 0, 0), static_cast<__u32>(LT_POLL_EPOLL));
  EXPECT_EQ(lt_poll_kind(441, 0, 0), static_cast<__u32>(LT_POLL_EPOLL));
  EXPECT_EQ(lt_poll_kind(SYS_ppoll, 0, 0), static_cast<__u32>(LT_POLL_POLL));
  EXPECT_EQ(lt_poll_kind(SYS_pselect6, 0, 0), static_cast<__u32>(LT_POLL_SELECT));
  EXPECT_EQ(lt_poll_kind(SYS_read, 1, 1), static_cast<__u32>(LT_POLL_NONE));
  EXPECT_EQ(lt_poll_kind(-1, 1, 1), static_cast<__u32>(LT_POLL_NONE)) << "preempted in user code";
}

TEST(Arch, IoUringPollsOnlyWhereItWaits) {
  EXPECT_EQ(lt_poll_kind(SYS_io_uring_enter, 1, LT_IORING_ENTER_GETEVENTS),
            static_cast<__u32>(LT_POLL_IO_URING));
  EXPECT_EQ(lt_poll_kind(SYS_io_uring_enter, 0, LT_IORING_ENTER_GETEVENTS), static_cast<__u32>(LT_POLL_NONE));
  EXPECT_EQ(lt_poll_kind(SYS_io_uring_enter, 1, 0), static_cast<__u32>(LT_POLL_NONE));
}

TEST(Arch, TheFirstArgumentIsADescriptorWhereItIs) {
  for (const int nr : {SYS_read, SYS_write, SYS_recvfrom, SYS_connect, SYS_accept4, SYS_fsync, SYS_sendmmsg,
                       SYS_epoll_wait}) {
    EXPECT_TRUE(lt_takes_fd(nr)) << nr;
  }
  for (const int nr : {SYS_poll, SYS_futex, SYS_wait4, SYS_openat, SYS_nanosleep, SYS_select, -1}) {
    EXPECT_FALSE(lt_takes_fd(nr)) << nr;
  }
}

TEST(Arch, WaitsAreToldApartByWordPidOrDescriptor) {
  EXPECT_EQ(lt_wait_key(SYS_futex, 0xabc, -1), 0xabcu);
  EXPECT_EQ(lt_wait_key(SYS_wait4, 77, -1), 77u);
  EXPECT_EQ(lt_wait_key(SYS_waitid, 1, -1), 0u);
  EXPECT_EQ(lt_wait_key(SYS_read, 4, 4), 4u);
  EXPECT_EQ(lt_wait_key(SYS_nanosleep, 0xdead, -1), 0u);
}

lt_step step(__u8 kind, __s16 cfa, __s8 bp, lt_frame f, __u64 value = 0) {
  lt_step s;
  lt_unwind_step(lt_row{0, kind, bp, cfa}, &f, value, &s);
  return s;
}

TEST(UnwindStep, EachKindFindsItsFrame) {
  const lt_frame f{0x401008, 0x7000, 0x7100};
  lt_step s = step(LT_ROW_RSP, 2, -2, f);  // offsets are in words
  EXPECT_EQ(s.status, static_cast<__u32>(LT_STEP_CFA));
  EXPECT_EQ(s.cfa, 0x7010u);
  EXPECT_EQ(s.saved_bp, static_cast<__u32>(LT_BP_FROM_CFA));
  EXPECT_EQ(s.cfa + s.bp_at, 0x7000u);
  s = step(LT_ROW_RBP, 2, 0, f);
  EXPECT_EQ(s.cfa, 0x7110u);
  EXPECT_FALSE(s.saved_bp);
  EXPECT_EQ(step(LT_ROW_PLT, 0, 0, {0x40100a, 0x7000, 0}).cfa, 0x7008u);
  EXPECT_EQ(step(LT_ROW_PLT, 0, 0, {0x40100b, 0x7000, 0}).cfa, 0x7010u);
  s = step(LT_ROW_GAP, 0, 0, f);
  EXPECT_EQ(s.cfa, 0x7110u);
  EXPECT_EQ(s.bp_at, 0x7100u);
  EXPECT_EQ(step(LT_ROW_GAP, 0, 0, {1, 0x7000, 0x6ff8}).status, static_cast<__u32>(LT_UNWIND_NO_MODULE));
  s = step(LT_ROW_INTERPRETED, 0, 0, f);
  EXPECT_EQ(s.status, static_cast<__u32>(LT_STEP_SP));
  EXPECT_EQ(s.cfa, 0x7110u) << "the return address is right above the saved rbp";
  EXPECT_EQ(s.bp_at, 0x7100u);
  EXPECT_EQ(s.cfa_at, 0x70f8u);
  s = step(LT_ROW_DEREF_RBP, -1, 0, f);
  EXPECT_EQ(s.status, static_cast<__u32>(LT_STEP_DEREF));
  EXPECT_EQ(s.cfa_at, 0x70f8u);
  EXPECT_EQ(s.bp_at, 0x7100u);
  s = step(LT_ROW_DEREF_RSP, 3, -1, f);
  EXPECT_EQ(s.status, static_cast<__u32>(LT_STEP_DEREF));
  EXPECT_EQ(s.cfa_at, 0x7018u);
  EXPECT_EQ(s.cfa_add, 8u);
  EXPECT_EQ(static_cast<__s64>(s.bp_at), -8) << "relative: the reader adds the CFA";
  s = step(LT_ROW_SIGNAL, 0, 0, f);
  EXPECT_EQ(s.status, static_cast<__u32>(LT_STEP_SIGNAL));
  EXPECT_EQ(s.cfa_at, 0x7000u + LT_SIGNAL_GREGS);
  EXPECT_EQ(step(LT_ROW_END, 0, 0, f).status, static_cast<__u32>(LT_UNWIND_END));
  EXPECT_EQ(step(LT_ROW_UNSUPPORTED, 0, 0, f).status, static_cast<__u32>(LT_UNWIND_UNSUPPORTED));
  EXPECT_EQ(step(200, 0, 0, f).status, static_cast<__u32>(LT_UNWIND_UNSUPPORTED));
}

}  // namespace
