// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback writes to a full pipe, which the thread "drainer" empties after --stall-ms.
#include "victim.h"

enum { PIPE_SIZE = 4096 };
static int ends[2];

static void read_all(void *arg) {
  char data[PIPE_SIZE];
  if (read(*(int *)arg, data, sizeof(data)) < 0) fail("read");
}
static struct helper drainer = {.after = read_all, .arg = &ends[0]};

static NOINLINE void write_in_callback(const struct options *o) {
  static char data[PIPE_SIZE];
  drainer.delay_ns = ms(o->stall_ms);
  STALL("pipe", helper_ask(&drainer); must((int)write(ends[1], data, sizeof(data)), "write"));
}

static void loop(const struct options *o) {
  static char data[PIPE_SIZE];
  must(pipe(ends), "pipe");
  must(fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE), "F_SETPIPE_SZ");
  must((int)write(ends[1], data, sizeof(data)), "write");  // full from now on
  helper_start(&drainer, "drainer");
  run_epoll_loop(o, write_in_callback);
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  return run_victim(&o, loop);
}
