// SPDX-License-Identifier: Apache-2.0
// A loop whose poll itself takes milliseconds of CPU: of --depth (default 8000) epoll sets in its set
// something is always ready, and it does nothing with them. Runs for --delay-ms (default 1000). Zero stalls.
#include "victim.h"

#include <sys/resource.h>

static void loop(const struct options *o) {
  struct rlimit descriptors;
  const int epfd = must(epoll_create1(0), "epoll_create1");
  struct epoll_event *const events = calloc(o->depth, sizeof(*events));
  if (!events) fail("calloc");
  must(getrlimit(RLIMIT_NOFILE, &descriptors), "getrlimit");
  descriptors.rlim_cur = descriptors.rlim_max;
  must(setrlimit(RLIMIT_NOFILE, &descriptors), "setrlimit");
  for (int i = 0; i < o->depth; i++) {
    const int inner = must(epoll_create1(0), "epoll_create1");
    watch(inner, must(eventfd(1, 0), "eventfd"));
    watch(epfd, inner);
  }
  struct schedule s = schedule_start(o);
  s.left = 0;
  while (!schedule_is_over(&s)) {
    must(epoll_wait(epfd, events, o->depth, 0), "epoll_wait");
    s.iterations++;
  }
  print_loop(&s, "epoll");
  free(events);
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.depth = 8000, .delay_ms = 1000});
  return run_victim(&o, loop);
}
