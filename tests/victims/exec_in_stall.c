// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback sleeps and then executes the same program anew (which says ready a second
// time, with the same pid, and loops healthily for 300 ms): an iteration that no poll ends. --flavour PATH:
// executes that victim instead, which stalls 3 times for --stall-ms.
#include "victim.h"

static NOINLINE void sleep_and_exec(const struct options *o) {
  STALL("sleep", sleep_ns(ms(o->stall_ms)));
  print_truths();
  if (*o->flavour) {
    char stall_ms[16];
    snprintf(stall_ms, sizeof(stall_ms), "%ld", o->stall_ms);
    execl(o->flavour, o->flavour, "--count", "3", "--delay-ms", "300", "--stall-ms", stall_ms, (char *)0);
    fail("execl");
  }
  execl("/proc/self/exe", "victim_exec_in_stall", "--count", "0", "--delay-ms", "300", (char *)0);
  fail("execl");
}

static void loop(const struct options *o) { run_epoll_loop(o, sleep_and_exec); }

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.count = 1});
  o.threads = 1;
  return run_victim(&o, loop);
}
