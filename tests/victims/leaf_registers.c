// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback runs where only an interrupted thread's registers tell the caller: code with
// its frame in r10, in rax or in memory above an array, as gcc's realigned prologues and OpenSSL's assembler
// have it (--flavour r10, rax, call, index), the same in a function that a signal handler interrupted
// (--flavour signal), or vfork(), whose return address is in rdi until the child is done (--flavour vfork).
#include "victim.h"

#include <signal.h>
#include <sys/wait.h>

// spin_*(n): n rounds of `dec`, with no stack pointer to go by: rsp is moved away from the frame.
__asm__(
    ".text\n"
    ".globl spin_r10\n.type spin_r10, @function\n"
    "spin_r10:\n.cfi_startproc\n"
    "  lea 8(%rsp), %r10\n  .cfi_def_cfa %r10, 0\n"
    "  and $-64, %rsp\n  sub $128, %rsp\n"
    "1: dec %rdi\n  jnz 1b\n"
    "  lea -8(%r10), %rsp\n  .cfi_def_cfa %rsp, 8\n"
    "  ret\n.cfi_endproc\n.size spin_r10, .-spin_r10\n"

    ".globl spin_rax\n.type spin_rax, @function\n"
    "spin_rax:\n.cfi_startproc\n"
    "  mov %rsp, %rax\n  .cfi_def_cfa %rax, 8\n"
    "  push %rbp\n  .cfi_offset %rbp, -16\n"
    "  lea -256(%rsp), %rsp\n  and $-1024, %rsp\n  xor %ebp, %ebp\n"
    "1: dec %rdi\n  jnz 1b\n"
    "  mov -8(%rax), %rbp\n  .cfi_restore %rbp\n  mov %rax, %rsp\n  .cfi_def_cfa %rsp, 8\n"
    "  ret\n.cfi_endproc\n.size spin_rax, .-spin_rax\n"

    // Keeps its frame in rax over a call of a private helper, which leaves rax alone.
    ".globl spin_call\n.type spin_call, @function\n"
    "spin_call:\n.cfi_startproc\n"
    "  mov %rsp, %rax\n  .cfi_def_cfa %rax, 8\n"
    "  sub $512, %rsp\n  and $-1024, %rsp\n"
    "  call spin_helper\n"
    "  mov %rax, %rsp\n  .cfi_def_cfa %rsp, 8\n"
    "  ret\n.cfi_endproc\n.size spin_call, .-spin_call\n"
    ".type spin_helper, @function\n"
    "spin_helper:\n.cfi_startproc\n"
    "1: dec %rdi\n  jnz 1b\n  ret\n.cfi_endproc\n.size spin_helper, .-spin_helper\n"

    // CFA = *(rsp + 8 + 8*r9) + 8
    ".globl spin_index\n.type spin_index, @function\n"
    "spin_index:\n.cfi_startproc\n"
    "  mov %rsp, %rax\n  .cfi_def_cfa %rax, 8\n"
    "  mov $5, %r9d\n  sub $512, %rsp\n  and $-1024, %rsp\n  mov %rax, 8(%rsp,%r9,8)\n"
    "  .cfi_escape 0x0f,0x0a,0x77,0x08,0x79,0x00,0x38,0x1e,0x22,0x06,0x23,0x08\n"
    "  xor %eax, %eax\n"
    "1: dec %rdi\n  jnz 1b\n"
    "  mov 8(%rsp,%r9,8), %rsp\n  .cfi_def_cfa %rsp, 8\n"
    "  ret\n.cfi_endproc\n.size spin_index, .-spin_index\n");
void spin_r10(unsigned long rounds);
void spin_rax(unsigned long rounds);
void spin_call(unsigned long rounds);
void spin_index(unsigned long rounds);

static unsigned long rounds;
static const struct options *running;
static volatile sig_atomic_t handled;

static void calibrate(long stall_ms) {
  enum { TRIAL = 20000000 };
  uint64_t best = ~0ull;
  for (int i = 0; i < 3; i++) {
    const uint64_t from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    spin_r10(TRIAL);
    const uint64_t took = clock_ns(CLOCK_THREAD_CPUTIME_ID) - from;
    if (took < best) best = took;
  }
  rounds = (unsigned long)(1e6 * (double)stall_ms * TRIAL / (double)best);
}

static NOINLINE void sleep_in_handler(int number) {
  (void)number;
  STALL("sleep", sleep_ns(ms(running->stall_ms)));
  handled = 1;
}

static NOINLINE void call_by_register(const struct options *o) {
  if (flavour_is(o, "rax")) {
    STALL("cpu", spin_rax(rounds));
  } else if (flavour_is(o, "call")) {
    STALL("cpu", spin_call(rounds));
  } else if (flavour_is(o, "index")) {
    STALL("cpu", spin_index(rounds));
  } else if (flavour_is(o, "signal")) {
    running = o;
    handled = 0;
    signal(SIGPROF, sleep_in_handler);
    // The signal is sent while the loop spins: CPU time, so that it cannot come before.
    const struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
    const struct itimerspec soon = {.it_value = {.tv_nsec = 1000000}};
    timer_t timer;
    must(timer_create(CLOCK_THREAD_CPUTIME_ID, (struct sigevent *)&event, &timer), "timer_create");
    must(timer_settime(timer, 0, &soon, 0), "timer_settime");
    while (!handled) spin_rax(50000000);
    timer_delete(timer);
  } else if (flavour_is(o, "vfork")) {
    const struct mark from = mark_now();
    const pid_t child = vfork();
    if (child == 0) {
      sleep_ns(ms(running->stall_ms));
      _exit(0);
    }
    log_stall(from, "child", __func__, __FILE__, __LINE__);
    must(waitpid(child, 0, 0), "waitpid");
  } else {
    STALL("cpu", spin_r10(rounds));
  }
}

static void loop(const struct options *o) { run_epoll_loop(o, call_by_register); }

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  running = &o;
  calibrate(o.stall_ms);
  return run_victim(&o, loop);
}
