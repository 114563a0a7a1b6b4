// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback writes to a file in --dir and fsyncs it, again and again for --stall-ms.
#include "victim.h"

static NOINLINE void write_and_sync(int fd, uint64_t end) {
  static char data[1 << 18];
  do {
    if (pwrite(fd, data, sizeof(data), 0) < 0) fail("pwrite");
    must(fsync(fd), "fsync");
  } while (now_ns() < end);
}

static NOINLINE void sync_in_callback(const struct options *o) {
  const int fd = must(open(o->dir, O_TMPFILE | O_RDWR, 0600), "open a file in --dir");
  STALL("file", write_and_sync(fd, now_ns() + ms(o->stall_ms)));
  close(fd);
}

static void loop(const struct options *o) { run_epoll_loop(o, sync_in_callback); }

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
