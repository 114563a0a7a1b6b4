// SPDX-License-Identifier: Apache-2.0
// A libevent loop with a timer, on the method that --flavour names (epoll, poll, select); one callback in a
// while sleeps.
#include <event2/event.h>

#include "../../victims/victim.h"

static struct options options;
static struct schedule schedule;
static struct event_base *base;

static NOINLINE void sleep_in_callback(void) { STALL("sleep", sleep_ns(ms(options.stall_ms))); }

static void on_tick(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what, (void)arg;
  if (stall_is_due(&schedule)) {
    sleep_in_callback();
    stall_is_done(&schedule);
  }
  if (schedule_is_over(&schedule)) event_base_loopbreak(base);
}

static void loop(const struct options *o) {
  static const char *const methods[] = {"epoll", "poll", "select"};
  struct event_config *config = event_config_new();
  for (int i = 0; i < 3; i++) {
    if (!flavour_is(o, methods[i])) event_config_avoid_method(config, methods[i]);
  }
  base = event_base_new_with_config(config);
  if (!base) fail("event_base_new_with_config");
  struct event *tick = event_new(base, -1, EV_PERSIST, on_tick, 0);
  const struct timeval period = {0, TICK_MS * 1000};
  event_add(tick, &period);
  // Something to poll, as a server has.
  int ends[2];
  must(pipe(ends), "pipe");
  struct event *other = event_new(base, ends[0], EV_READ | EV_PERSIST, on_tick, 0);
  event_add(other, 0);
  schedule = schedule_start(o);
  event_base_dispatch(base);
}

int main(int argc, char **argv) {
  options = parse_options(argc, argv, (struct options){0});
  return run_victim(&options, loop);
}
