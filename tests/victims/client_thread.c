// SPDX-License-Identifier: Apache-2.0
// No event loop: a synchronous client, which polls its one connection for each answer and computes for
// --stall-ms in between; with --flavour terminal an interactive program, which polls its terminal for what is
// typed. The thread "server" answers, or types. Logs no stalls, since there are none.
#include "victim.h"

#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <termios.h>

static void *serve(void *arg) {
  const int fd = *(const int *)arg;
  char byte;
  while (read(fd, &byte, 1) == 1) {
    sleep_ns(ms(5));
    must((int)write(fd, &byte, 1), "write");
  }
  return 0;
}

static void open_terminal(int *program, int *user) {
  struct termios raw = {0};
  cfmakeraw(&raw);
  must(openpty(user, program, 0, &raw, 0), "openpty");
}

static void client(const struct options *o) {
  int ends[2];
  if (flavour_is(o, "terminal")) {
    open_terminal(&ends[0], &ends[1]);
  } else {
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
  }
  start_thread(serve, &ends[1], "server");
  struct schedule s = schedule_start(o);
  while (!schedule_is_over(&s)) {
    char byte = 1;
    must((int)write(ends[0], &byte, 1), "write");
    struct pollfd fd = {.fd = ends[0], .events = POLLIN};
    must(poll(&fd, 1, 1000), "poll");
    must((int)read(ends[0], &byte, 1), "read");
    if (stall_is_due(&s)) {
      spin_ns(ms(o->stall_ms));
      stall_is_done(&s);
    }
  }
  print_loop(&s, "none");
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  return run_victim(&o, client);
}
