// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback waits for a child process, which sleeps for --stall-ms. Prints its pid.
#include "victim.h"

#include <sys/wait.h>

static NOINLINE void wait_for_child(const struct options *o) {
  const pid_t child = must(fork(), "fork");
  if (child == 0) {
    sleep_ns(ms(o->stall_ms));
    _exit(0);
  }
  dprintf(STDOUT_FILENO, "{\"child\":%d}\n", child);
  STALL("child", must(waitpid(child, 0, 0), "waitpid"));
}

static void loop(const struct options *o) { run_epoll_loop(o, wait_for_child); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
