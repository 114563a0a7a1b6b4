// SPDX-License-Identifier: Apache-2.0
// A saturated loop (its poll never sleeps, iterations of --work-us, default 200) with --count real stalls
// among its short iterations; --flavour sleep (default) or cpu.
#include "victim.h"

static NOINLINE void short_work(const struct options *o) { spin_ns((uint64_t)o->work_us * 1000); }

static NOINLINE void long_work(const struct options *o) {
  if (flavour_is(o, "cpu")) {
    STALL("cpu", spin_ns(ms(o->stall_ms)));
  } else {
    STALL("sleep", sleep_ns(ms(o->stall_ms)));
  }
}

static void loop(const struct options *o) {
  const int epfd = must(epoll_create1(0), "epoll_create1");
  watch(epfd, must(eventfd(1, 0), "eventfd"));
  struct schedule s = schedule_start(o);
  while (!schedule_is_over(&s)) {
    struct epoll_event event;
    must(epoll_wait(epfd, &event, 1, 0), "epoll_wait");
    if (stall_is_due(&s)) {
      long_work(o);
      stall_is_done(&s);
    } else {
      short_work(o);
    }
  }
  print_loop(&s, "epoll");
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.work_us = 200});
  return run_victim(&o, loop);
}
