// SPDX-License-Identifier: Apache-2.0
// A poll(2) loop over three descriptors whose callback sleeps.
#include "victim.h"

#include <poll.h>

static NOINLINE void sleep_in_callback(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void loop(const struct options *o) {
  int ends[2];
  must(pipe(ends), "pipe");
  struct pollfd fds[3] = {
      {.fd = make_ticker(TICK_MS), .events = POLLIN},
      {.fd = ends[0], .events = POLLIN},
      {.fd = must(eventfd(0, 0), "eventfd"), .events = POLLIN},
  };
  struct schedule s = schedule_start(o);
  while (!schedule_is_over(&s)) {
    must(poll(fds, 3, -1), "poll");
    drain(fds[0].fd);
    if (stall_is_due(&s)) {
      sleep_in_callback(o);
      stall_is_done(&s);
    }
  }
  print_loop(&s, "poll");
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
