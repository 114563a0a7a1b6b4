// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback dirties more file pages than its memory cgroup may hold, for --stall-ms: most
// of that is the kernel's search for pages to free, and its wait for the disk to take them. Needs a limit
// well under 64 MiB.
#include "victim.h"

#include <sys/mman.h>

enum { FILE_SIZE = 256 << 20, PAGE = 4096 };
static volatile char *memory;

static NOINLINE void dirty_pages(uint64_t end) {
  static size_t at;
  static char value;
  for (value++; now_ns() < end; at = (at + PAGE) % FILE_SIZE) memory[at] = value;
}

static NOINLINE void dirty_memory(const struct options *o) {
  STALL("page_fault", dirty_pages(now_ns() + ms(o->stall_ms)));
}

static void loop(const struct options *o) {
  const int file = must(open(o->dir, O_TMPFILE | O_RDWR, 0600), "open a file in --dir");
  must(ftruncate(file, FILE_SIZE), "ftruncate");
  memory = mmap(0, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) fail("mmap");
  run_epoll_loop(o, dirty_memory);
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  return run_victim(&o, loop);
}
