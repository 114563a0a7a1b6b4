// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback runs an epoll instance of its own, as Node's execSync does: one stall.
// --work-us K (default 0): the inner loop wakes every K us and polls again; still one stall.
#include "victim.h"

static NOINLINE void run_inner_loop(const struct options *o) {
  const int epfd = must(epoll_create1(0), "epoll_create1");
  const uint64_t end = now_ns() + ms(o->stall_ms);
  const long step_ms = o->work_us ? (o->work_us + 999) / 1000 : o->stall_ms;
  const int ticker = make_ticker(step_ms);
  struct epoll_event event;
  watch(epfd, ticker);
  do {
    must(epoll_wait(epfd, &event, 1, -1), "epoll_wait");
    drain(ticker);
  } while (now_ns() < end);
  close(ticker);
  close(epfd);
}

static NOINLINE void loop_in_callback(const struct options *o) { STALL("other", run_inner_loop(o)); }

static void loop(const struct options *o) { run_epoll_loop(o, loop_in_callback); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
