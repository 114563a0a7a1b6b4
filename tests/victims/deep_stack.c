// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback sleeps under --depth (default 200) frames of recursion.
#include "victim.h"

static NOINLINE int descend(int depth, const struct options *o) {
  if (depth <= 0) {
    STALL("sleep", sleep_ns(ms(o->stall_ms)));
    return 1;
  }
  return descend(depth - 1, o) + depth % 2;  // needs the result: no tail call, no loop
}

static NOINLINE void sleep_far_down(const struct options *o) {
  if (descend(o->depth, o) < 0) abort();
}

static void loop(const struct options *o) { run_epoll_loop(o, sleep_far_down); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.depth = 200});
  return run_victim(&o, loop);
}
