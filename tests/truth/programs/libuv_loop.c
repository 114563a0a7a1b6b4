// SPDX-License-Identifier: Apache-2.0
// A libuv loop with a timer; one callback in a while sleeps, computes, or waits for a file system call made
// synchronously.
#include <uv.h>

#include "../../victims/victim.h"

static struct options options;
static struct schedule schedule;

static NOINLINE void sleep_in_callback(void) { STALL("sleep", sleep_ns(ms(options.stall_ms))); }
static NOINLINE void compute_in_callback(void) { STALL("cpu", spin_ns(ms(options.stall_ms))); }

static void on_tick(uv_timer_t *timer) {
  if (stall_is_due(&schedule)) {
    if (flavour_is(&options, "cpu")) {
      compute_in_callback();
    } else {
      sleep_in_callback();
    }
    stall_is_done(&schedule);
  }
  if (schedule_is_over(&schedule)) uv_timer_stop(timer);
}

static void loop(const struct options *o) {
  uv_timer_t timer;
  schedule = schedule_start(o);
  uv_timer_init(uv_default_loop(), &timer);
  uv_timer_start(&timer, on_tick, TICK_MS, TICK_MS);
  uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

int main(int argc, char **argv) {
  options = parse_options(argc, argv, (struct options){0});
  return run_victim(&options, loop);
}
