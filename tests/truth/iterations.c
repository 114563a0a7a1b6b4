// SPDX-License-Identifier: Apache-2.0
// The truth about every iteration of a program's loops, whatever it is written in:
// LD_PRELOAD=libtruth_iterations.so.
//
// It stands between the program and the C library's polls and notes when each returned and when the next one
// of the same descriptor began, with the thread's CPU and run queue time in between. Iterations of
// TRUTH_FLOOR_NS and more are kept, in a file of $TRUTH_DIR for each thread that polls, which is mapped
// before its first poll: no write, no lock, no allocation later. A poll costs the program two clock reads and
// a read of schedstat more, about a microsecond.
//
// The file is a header and records, in the byte order of the machine (read by oracle.py):
//   u64 magic; u32 pid, tid; u64 count, lost   then, for each:   u64 start_ns, end_ns, cpu_ns, runq_ns; u32
//   kind, fd
// TRUTH_POLLS says which polls are the loop's: "epoll" (default), "poll", "select". Others pass through. With
// "park" none is: the program says itself when its threads have nothing to do, for those of a runtime that
// share one epoll descriptor wait on a futex as well.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

enum kind { KIND_EPOLL, KIND_POLL, KIND_SELECT, KIND_PARK };
enum { MAX_RECORDS = 16384, MAGIC = 0x6c747472 };

struct iteration {
  uint64_t start_ns, end_ns, cpu_ns, runq_ns;
  uint32_t kind, fd;
};
struct file {
  uint64_t magic;
  uint32_t pid, tid;
  uint64_t count, lost;
  struct iteration iterations[MAX_RECORDS];
};
// The loop of a thread: its descriptor and when its poll last returned.
struct loop {
  bool known;
  int fd;
  uint64_t returned_ns, cpu_ns, runq_ns;
};

static __thread struct file *log_file;
static __thread bool unavailable;
static __thread int schedstat = -1;
static __thread struct loop loop;
static char log_dir[400];  // kept, since some servers empty their environment
static uint64_t floor_ns = 500000;
static enum kind wanted = KIND_EPOLL;

static uint64_t clock_now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

// A forked child's only thread has the log of its parent's.
static void forget_parent(void) {
  log_file = 0;
  loop.known = false;
  if (schedstat >= 0) close(schedstat);
  schedstat = -1;
}

// How long this thread was runnable and had no CPU; the scheduler adds it up when the thread gets one.
static uint64_t runqueue_ns(void) {
  char text[96];
  if (schedstat < 0) schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  const ssize_t length = pread(schedstat, text, sizeof(text) - 1, 0);
  if (length <= 0) return 0;
  text[length] = 0;
  const char *second = strchr(text, ' ');
  return second ? strtoull(second, 0, 10) : 0;
}

__attribute__((constructor)) static void configure(void) {
  const char *text = getenv("TRUTH_DIR");
  if (text && strlen(text) < sizeof(log_dir)) strcpy(log_dir, text);
  text = getenv("TRUTH_FLOOR_NS");
  if (text) floor_ns = strtoull(text, 0, 10);
  text = getenv("TRUTH_POLLS");
  if (text)
    wanted = !strcmp(text, "poll")     ? KIND_POLL
             : !strcmp(text, "select") ? KIND_SELECT
             : !strcmp(text, "park")   ? KIND_PARK
                                       : KIND_EPOLL;
  pthread_atfork(0, 0, forget_parent);
}

static bool open_log(void) {
  char path[512];
  if (log_file) return true;
  if (unavailable || !log_dir[0]) return false;
  unavailable = true;
  snprintf(path, sizeof(path), "%s/%d", log_dir, gettid());
  const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return false;
  void *map = MAP_FAILED;
  if (ftruncate(fd, sizeof(struct file)) == 0) {
    map = mmap(0, sizeof(struct file), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  }
  close(fd);
  if (map == MAP_FAILED) return false;
  log_file = map;
  log_file->pid = (uint32_t)getpid();
  log_file->tid = (uint32_t)gettid();
  log_file->magic = MAGIC;
  unavailable = false;
  return true;
}

// The thread's loop is the first descriptor that it polled. Polls of others are jumped to, as are those of
// kinds that are not wanted: they leave no frame of ours on their stacks.
static bool is_loop(enum kind kind, int fd) {
  if (kind != wanted || !open_log()) return false;
  if (!loop.known) loop = (struct loop){.known = true, .fd = fd};
  return loop.fd == fd;
}

static void before_poll(enum kind kind) {
  if (!loop.returned_ns || clock_now(CLOCK_MONOTONIC) - loop.returned_ns < floor_ns) return;
  if (log_file->count == MAX_RECORDS) {
    log_file->lost++;
    return;
  }
  struct iteration *i = &log_file->iterations[log_file->count];
  *i = (struct iteration){.start_ns = loop.returned_ns, .kind = kind, .fd = (uint32_t)loop.fd};
  for (int tries = 0; tries < 3; tries++) {  // until it was not preempted between the clocks
    const uint64_t runq_ns = runqueue_ns();
    i->cpu_ns = clock_now(CLOCK_THREAD_CPUTIME_ID) - loop.cpu_ns;
    i->end_ns = clock_now(CLOCK_MONOTONIC);
    i->runq_ns = runq_ns - loop.runq_ns;
    if (runqueue_ns() == runq_ns) break;
  }
  __atomic_store_n(&log_file->count, log_file->count + 1, __ATOMIC_RELEASE);
}

// The time of day first: whatever takes the CPU away from here on is part of the iteration.
static void after_poll(void) {
  loop.returned_ns = clock_now(CLOCK_MONOTONIC);
  loop.runq_ns = runqueue_ns();
  loop.cpu_ns = clock_now(CLOCK_THREAD_CPUTIME_ID);
}

// For the program to find by dlsym() and to call right before it has a thread wait, and right after.
void truth_before_park(void) {
  if (is_loop(KIND_PARK, 0)) before_poll(KIND_PARK);
}

void truth_after_park(void) {
  if (is_loop(KIND_PARK, 0)) after_poll();
}

// The C library's own, found once.
#define REAL(name)               \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout) {
  REAL(epoll_wait);
  if (!is_loop(KIND_EPOLL, epfd)) return real(epfd, events, max, timeout);
  before_poll(KIND_EPOLL);
  const int n = real(epfd, events, max, timeout);
  after_poll();
  return n;
}

int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout, const sigset_t *mask) {
  REAL(epoll_pwait);
  if (!is_loop(KIND_EPOLL, epfd)) return real(epfd, events, max, timeout, mask);
  before_poll(KIND_EPOLL);
  const int n = real(epfd, events, max, timeout, mask);
  after_poll();
  return n;
}

int epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *timeout,
                 const sigset_t *mask) {
  REAL(epoll_pwait2);
  if (!is_loop(KIND_EPOLL, epfd)) return real(epfd, events, max, timeout, mask);
  before_poll(KIND_EPOLL);
  const int n = real(epfd, events, max, timeout, mask);
  after_poll();
  return n;
}

int poll(struct pollfd *fds, nfds_t count, int timeout) {
  REAL(poll);
  if (!is_loop(KIND_POLL, 0)) return real(fds, count, timeout);
  before_poll(KIND_POLL);
  const int n = real(fds, count, timeout);
  after_poll();
  return n;
}

int select(int count, fd_set *readable, fd_set *writable, fd_set *failed, struct timeval *timeout) {
  REAL(select);
  if (!is_loop(KIND_SELECT, 0)) return real(count, readable, writable, failed, timeout);
  before_poll(KIND_SELECT);
  const int n = real(count, readable, writable, failed, timeout);
  after_poll();
  return n;
}
