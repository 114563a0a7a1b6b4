// SPDX-License-Identifier: Apache-2.0
// Loop threads that come and go: --count times (default 20), --threads (default 4) at once, a thread starts
// a loop, runs it for --gap-ms, stalls once, runs it for another --gap-ms and ends.
#include "victim.h"

static NOINLINE void sleep_once(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void *short_life(void *arg) {
  struct options once = *(const struct options *)arg;
  once.count = 1;
  once.delay_ms = 0;
  run_epoll_loop(&once, sleep_once);
  return 0;
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.count = 20, .threads = 4});
  pthread_t *threads = calloc((size_t)o.threads, sizeof(*threads));
  say_ready();
  for (const uint64_t end = now_ns() + ms(o.delay_ms); now_ns() < end && !was_told();) sleep_ns(ms(TICK_MS));
  for (int round = 0; round < o.count; round++) {
    for (int i = 0; i < o.threads; i++) threads[i] = start_thread(short_life, (void *)&o, "churn");
    for (int i = 0; i < o.threads; i++) pthread_join(threads[i], 0);
  }
  print_truths();
  free(threads);
  return 0;
}
