// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback waits in poll(2) for one descriptor, as libpq does: one stall, not two
// iterations. A helper thread writes to the pipe after --stall-ms.
#include "victim.h"

#include <poll.h>

static void answer(void *arg) {
  if (write(*(int *)arg, "x", 1) != 1) fail("write");
}

static NOINLINE void wait_for_answer(struct helper *writer, int fd) {
  struct pollfd one = {.fd = fd, .events = POLLIN};
  char c;
  STALL("pipe", helper_ask(writer); must(poll(&one, 1, -1), "poll"));
  if (read(fd, &c, 1) != 1) fail("read");
}

static int ends[2];
static struct helper writer = {.after = answer, .arg = &ends[1]};

static NOINLINE void poll_in_callback(const struct options *o) {
  writer.delay_ns = ms(o->stall_ms);
  wait_for_answer(&writer, ends[0]);
}

static void loop(const struct options *o) {
  must(pipe(ends), "pipe");
  helper_start(&writer, "writer");
  run_epoll_loop(o, poll_in_callback);
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  return run_victim(&o, loop);
}
