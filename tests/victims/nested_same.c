// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback re-enters the same epoll descriptor for --stall-ms, as nest_asyncio does.
// The loop keeps turning all the while: zero stalls.
#include "victim.h"

static NOINLINE void turn_once(int epfd, int ticker) {
  struct epoll_event event;
  must(epoll_wait(epfd, &event, 1, -1), "epoll_wait");
  drain(ticker);
}

static NOINLINE void run_until(int epfd, int ticker, uint64_t end, struct schedule *s) {
  while (now_ns() < end) {
    turn_once(epfd, ticker);
    s->iterations++;
  }
}

static void loop(const struct options *o) {
  const int epfd = must(epoll_create1(0), "epoll_create1");
  const int ticker = make_ticker(TICK_MS);
  watch(epfd, ticker);
  struct schedule s = schedule_start(o);
  while (!schedule_is_over(&s)) {
    turn_once(epfd, ticker);
    if (stall_is_due(&s)) {
      run_until(epfd, ticker, now_ns() + ms(o->stall_ms), &s);
      stall_is_done(&s);
    }
  }
  print_loop(&s, "epoll");
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
