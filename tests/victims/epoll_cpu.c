// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback computes for too long.
#include "victim.h"

static NOINLINE void compute_in_callback(const struct options *o) { STALL("cpu", spin_ns(ms(o->stall_ms))); }

static void loop(const struct options *o) { run_epoll_loop(o, compute_in_callback); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
