// SPDX-License-Identifier: Apache-2.0
// An epoll loop that renames its thread before each stall: "name-1", "name-2", ...
#include "victim.h"

static atomic_int renames;

static NOINLINE void rename_and_sleep(const struct options *o) {
  char name[32];
  snprintf(name, sizeof(name), "name-%d", atomic_fetch_add(&renames, 1) + 1);
  prctl(PR_SET_NAME, name);
  STALL("sleep", sleep_ns(ms(o->stall_ms)));
}

static void loop(const struct options *o) { run_epoll_loop(o, rename_and_sleep); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
