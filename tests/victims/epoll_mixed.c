// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback sleeps for two thirds of the stall and computes for the rest: one stall.
#include "victim.h"

static NOINLINE void fetch(const struct options *o) { sleep_ns(ms(o->stall_ms) * 2 / 3); }

static NOINLINE void digest(const struct options *o) { spin_ns(ms(o->stall_ms) / 3); }

static NOINLINE void fetch_and_digest(const struct options *o) { STALL("sleep", fetch(o); digest(o)); }

static void loop(const struct options *o) { run_epoll_loop(o, fetch_and_digest); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
