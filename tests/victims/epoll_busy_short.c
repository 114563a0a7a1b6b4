// SPDX-License-Identifier: Apache-2.0
// A saturated loop: its poll never sleeps (timeout 0, always ready), each iteration works --work-us
// (default 200). Runs for --delay-ms (default 1000). Zero stalls, though the thread never idles.
#include "victim.h"

static NOINLINE void short_work(const struct options *o) { spin_ns((uint64_t)o->work_us * 1000); }

static void loop(const struct options *o) {
  const int epfd = must(epoll_create1(0), "epoll_create1");
  watch(epfd, must(eventfd(1, 0), "eventfd"));
  struct schedule s = schedule_start(o);
  s.left = 0;
  while (!schedule_is_over(&s)) {
    struct epoll_event event;
    must(epoll_wait(epfd, &event, 1, 0), "epoll_wait");
    s.iterations++;
    short_work(o);
  }
  print_loop(&s, "epoll");
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.work_us = 200, .delay_ms = 1000});
  return run_victim(&o, loop);
}
