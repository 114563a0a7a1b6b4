// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback never returns. Kill it.
#include "victim.h"

static NOINLINE void compute_for_ever(void) {
  for (;;) spin_ns(ms(1000));
}

static NOINLINE void never_return(const struct options *o) {
  (void)o;
  LAST_STALL("cpu", compute_for_ever());
}

static void loop(const struct options *o) { run_epoll_loop(o, never_return); }

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.count = 1});
  o.threads = 1;
  return run_victim(&o, loop);
}
