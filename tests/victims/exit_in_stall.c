// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback sleeps and then ends the process: an iteration that no poll ends. --flavour
// thread: only its thread ends.
#include "victim.h"

static NOINLINE void sleep_and_exit(const struct options *o) {
  STALL("sleep", sleep_ns(ms(o->stall_ms)));
  if (flavour_is(o, "thread")) pthread_exit(0);
  print_truths();
  _exit(0);
}

static void *loop(void *o) {
  run_epoll_loop(o, sleep_and_exit);
  return 0;
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.count = 1});
  say_ready();
  if (!flavour_is(&o, "thread")) return loop(&o) != 0;
  pthread_join(start_thread(loop, &o, "short-lived"), 0);
  print_truths();
  return 0;
}
