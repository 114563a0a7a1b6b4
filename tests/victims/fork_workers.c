// SPDX-License-Identifier: Apache-2.0
// A prefork server: --threads (default 4) worker processes, each a loop that stalls --count times. The
// parent only waits for them.
#include "victim.h"

#include <signal.h>
#include <sys/wait.h>

static NOINLINE void sleep_in_worker(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void work(const struct options *o) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "worker");
  alarm(LONGEST_RUN_S);
  run_epoll_loop(o, sleep_in_worker);
  print_truths();
  _exit(0);
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.threads = 4});
  say_ready();
  for (int i = 0; i < o.threads; i++) {
    if (must(fork(), "fork") == 0) work(&o);
  }
  while (wait(0) > 0) {
  }
  return 0;
}
