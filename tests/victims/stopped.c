// SPDX-License-Identifier: Apache-2.0
// An epoll loop that is stopped in its callback; it does nothing wrong itself. --flavour self: a child
// process sends SIGSTOP, and SIGCONT --stall-ms later, --count times. Otherwise the test sends them: each
// tick then computes for --work-us (default 4000 of 5000), so that a stop lands in a callback, and the loop
// runs for --delay-ms (default 3000).
#include "victim.h"

#include <signal.h>
#include <sys/wait.h>

static int asks[2];
static volatile sig_atomic_t continued;

static void on_continue(int number) {
  (void)number;
  continued = 1;
}

static void stop_parent_when_asked(uint64_t ns) {
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (char c; read(asks[0], &c, 1) == 1;) {
    kill(parent, SIGSTOP);
    sleep_ns(ns);
    kill(parent, SIGCONT);
  }
  _exit(0);
}

static NOINLINE void ask_and_wait_to_be_continued(void) {
  if (write(asks[1], "x", 1) != 1) fail("write");
  while (!continued) {
  }
}

static NOINLINE void be_stopped_in_callback(const struct options *o) {
  (void)o;
  continued = 0;
  STALL("stopped", ask_and_wait_to_be_continued());
}

static void stall_by_itself(const struct options *o) {
  signal(SIGCONT, on_continue);
  must(pipe(asks), "pipe");
  const pid_t child = must(fork(), "fork");
  if (child == 0) stop_parent_when_asked(ms(o->stall_ms));
  run_epoll_loop(o, be_stopped_in_callback);
  kill(child, SIGKILL);
  waitpid(child, 0, 0);
}

static NOINLINE void compute_a_little(const struct options *o) { spin_ns((uint64_t)o->work_us * 1000); }

static void be_stopped_by_others(const struct options *o) {
  const int epfd = must(epoll_create1(0), "epoll_create1"), ticker = make_ticker(TICK_MS);
  watch(epfd, ticker);
  struct schedule s = schedule_start(o);
  s.left = 0;
  while (!schedule_is_over(&s)) {
    struct epoll_event event;
    if (epoll_wait(epfd, &event, 1, -1) < 0 && errno != EINTR) fail("epoll_wait");
    drain(ticker);
    s.iterations++;
    compute_a_little(o);
  }
  print_loop(&s, "epoll");
}

static void loop(const struct options *o) {
  flavour_is(o, "self") ? stall_by_itself(o) : be_stopped_by_others(o);
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.work_us = 4000});
  o.threads = 1;
  if (!o.delay_ms && !flavour_is(&o, "self")) o.delay_ms = 3000;
  return run_victim(&o, loop);
}
