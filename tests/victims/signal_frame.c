// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback is interrupted by a signal, and the handler sleeps: the stack has a signal
// frame.
#include "victim.h"

#include <signal.h>
#include <sys/time.h>

static const struct options *handler_options;
static volatile sig_atomic_t handled;

static NOINLINE void sleep_in_handler(int number) {
  (void)number;
  STALL("sleep", sleep_ns(ms(handler_options->stall_ms)));
  handled = 1;
}

static NOINLINE void compute_until_interrupted(const struct options *o) {
  const struct itimerval soon = {.it_value = {.tv_usec = 200}};
  handler_options = o;
  handled = 0;
  must(setitimer(ITIMER_REAL, &soon, 0), "setitimer");
  while (!handled) {
  }
}

static void loop(const struct options *o) { run_epoll_loop(o, compute_until_interrupted); }

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  signal(SIGALRM, sleep_in_handler);  // in place of the run's time limit
  return run_victim(&o, loop);
}
