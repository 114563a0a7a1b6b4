// SPDX-License-Identifier: Apache-2.0
// An io_uring loop (raw system calls): waits for a 5 ms IORING_OP_TIMEOUT with min_complete 1; its callback
// sleeps.
#include "victim.h"

#include <linux/io_uring.h>
#include <sys/mman.h>

struct ring {
  int fd;
  unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail;
  struct io_uring_sqe *sqes;
};

static void *map(int fd, size_t size, off_t what) {
  void *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
  if (p == MAP_FAILED) fail("mmap of the ring");
  return p;
}

static struct ring open_ring(void) {
  struct io_uring_params p = {0};
  struct ring r = {.fd = (int)syscall(SYS_io_uring_setup, 8, &p)};
  if (r.fd < 0) skip("io_uring_setup");
  char *sq = map(r.fd, p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
  char *cq = map(r.fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
  r.sqes = map(r.fd, p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
  r.sq_tail = (unsigned *)(sq + p.sq_off.tail);
  r.sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
  r.sq_array = (unsigned *)(sq + p.sq_off.array);
  r.cq_head = (unsigned *)(cq + p.cq_off.head);
  r.cq_tail = (unsigned *)(cq + p.cq_off.tail);
  return r;
}

static void queue_timeout(struct ring *r, const struct __kernel_timespec *after) {
  const unsigned tail = *r->sq_tail, slot = tail & *r->sq_mask;
  r->sqes[slot] =
      (struct io_uring_sqe){.opcode = IORING_OP_TIMEOUT, .fd = -1, .addr = (uintptr_t)after, .len = 1};
  r->sq_array[slot] = slot;
  __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static NOINLINE void sleep_in_callback(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void loop(const struct options *o) {
  struct ring r = open_ring();
  const struct __kernel_timespec tick = {.tv_nsec = TICK_MS * 1000000};
  struct schedule s = schedule_start(o);
  while (!schedule_is_over(&s)) {
    queue_timeout(&r, &tick);
    must((int)syscall(SYS_io_uring_enter, r.fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0), "io_uring_enter");
    __atomic_store_n(r.cq_head, __atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
    if (stall_is_due(&s)) {
      sleep_in_callback(o);
      stall_is_done(&s);
    }
  }
  print_loop(&s, "io_uring");
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){0});
  return run_victim(&o, loop);
}
