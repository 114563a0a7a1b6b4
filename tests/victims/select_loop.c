// SPDX-License-Identifier: Apache-2.0
// A select(2) loop over three descriptors whose callback sleeps.
#include "victim.h"

#include <sys/select.h>

static NOINLINE void sleep_in_callback(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void loop(const struct options *o) {
  int ends[2];
  must(pipe(ends), "pipe");
  const int event = must(eventfd(0, 0), "eventfd"), ticker = make_ticker(TICK_MS);
  const int highest = event > ticker ? event : ticker;
  struct schedule s = schedule_start(o);
  while (!schedule_is_over(&s)) {
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(ends[0], &readable);
    FD_SET(event, &readable);
    FD_SET(ticker, &readable);
    must(select(highest + 1, &readable, 0, 0, 0), "select");
    drain(ticker);
    if (stall_is_due(&s)) {
      sleep_in_callback(o);
      stall_is_done(&s);
    }
  }
  print_loop(&s, "select");
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
