// SPDX-License-Identifier: Apache-2.0
// An epoll loop far down a stack of --depth (default 20) frames of 8 KiB: the outer ones are never touched,
// so their pages can be taken away. It sleeps, or spins with --flavour file-cpu.
// With --flavour file and file-cpu the stack is a file's pages (under --dir), which need
// no swap for that. It prints the range: {"stack_low","stack_high","loop_sp"}.
#include "victim.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { STACK_BYTES = 1 << 20 };

static char *stack;

static NOINLINE void sleep_at_the_bottom(const struct options *o) {
  if (flavour_is(o, "file-cpu")) {
    STALL("cpu", spin_ns(ms(o->stall_ms)));
  } else {
    STALL("sleep", sleep_ns(ms(o->stall_ms)));
  }
}

static NOINLINE int descend(int depth, const struct options *o) {
  volatile char room[8192];
  room[0] = (char)depth;
  if (depth > 0) return descend(depth - 1, o) + room[0];
  dprintf(STDOUT_FILENO, "{\"stack_low\":%llu,\"stack_high\":%llu,\"loop_sp\":%llu}\n",
          (unsigned long long)(uintptr_t)stack, (unsigned long long)(uintptr_t)(stack + STACK_BYTES),
          (unsigned long long)(uintptr_t)__builtin_frame_address(0));
  run_epoll_loop(o, sleep_at_the_bottom);
  return room[0];
}

static void *run(void *arg) {
  const struct options *o = arg;
  return (void *)(intptr_t)(descend(o->depth, o) == -1);
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.depth = 20});
  int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;
  if (!strncmp(o.flavour, "file", 4)) {
    char path[256];
    snprintf(path, sizeof path, "%s/swapped_stack.XXXXXX", o.dir);
    fd = must(mkstemp(path), "mkstemp");
    unlink(path);
    must(ftruncate(fd, STACK_BYTES), "ftruncate");
    flags = MAP_SHARED;
  }
  stack = mmap(0, STACK_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (stack == MAP_FAILED) fail("mmap");
  say_ready();
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, STACK_BYTES);
  if (pthread_create(&thread, &attributes, run, (void *)&o)) fail("pthread_create");
  pthread_join(thread, 0);
  print_truths();
  return 0;
}
