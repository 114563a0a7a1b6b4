// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback sleeps.
#include "victim.h"

static NOINLINE void sleep_in_callback(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void loop(const struct options *o) { run_epoll_loop(o, sleep_in_callback); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
