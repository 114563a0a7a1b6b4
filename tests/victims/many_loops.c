// SPDX-License-Identifier: Apache-2.0
// --threads (default 100) loop threads that tick every 100 ms and do nothing else; one more,
// "stalling-loop", stalls --count times. Runs for --delay-ms (default 1000) and the stalls.
#include "victim.h"

static atomic_bool over;

static void *idle_loop(void *arg) {
  (void)arg;
  const int epfd = must(epoll_create1(0), "epoll_create1"), ticker = make_ticker(100);
  watch(epfd, ticker);
  while (!atomic_load(&over)) {
    struct epoll_event event;
    must(epoll_wait(epfd, &event, 1, -1), "epoll_wait");
    drain(ticker);
  }
  close(ticker);
  close(epfd);
  return 0;
}

static NOINLINE void sleep_in_callback(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void *stalling_loop(void *o) {
  run_epoll_loop(o, sleep_in_callback);
  return 0;
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.threads = 100, .delay_ms = 1000});
  pthread_t *threads = calloc((size_t)o.threads, sizeof(*threads));
  for (int i = 0; i < o.threads; i++) threads[i] = start_thread(idle_loop, 0, "idle-loop");
  say_ready();
  pthread_join(start_thread(stalling_loop, &o, "stalling-loop"), 0);
  atomic_store(&over, true);
  for (int i = 0; i < o.threads; i++) pthread_join(threads[i], 0);
  print_truths();
  free(threads);
  return 0;
}
