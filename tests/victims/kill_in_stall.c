// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback sleeps for --stall-ms (default a minute): the test kills it meanwhile.
#include "victim.h"

static NOINLINE void sleep_until_killed(const struct options *o) {
  LAST_STALL("sleep", sleep_ns(ms(o->stall_ms)));
}

static void loop(const struct options *o) { run_epoll_loop(o, sleep_until_killed); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.count = 1, .stall_ms = 60000});
  return run_victim(&o, loop);
}
