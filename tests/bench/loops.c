// SPDX-License-Identifier: Apache-2.0
// Many event loops: what tests/bench/run --only scale traces.
//
//   bench_loops LOOPS PROCESSES
//
// LOOPS threads in PROCESSES processes, each with an epoll loop of its own. By turns they are woken by a
// timeout of epoll_wait, by a timerfd, and by an eventfd that another thread of the process writes. Commands
// on standard input:
//
//   rate HZ BURST         each loop wakes HZ times a second, and polls BURST times each time (BURST - 1 of
//   them do not
//                         sleep): LOOPS * HZ * BURST iterations a second
//   stall MS THRESHOLD_MS each wake-up sleeps for MS in its iteration; 0 0 = none
//   stats                 one JSON line: iterations, CPU time of all processes, and what the loops' own
//   clocks saw
//
// What a loop's clock tells of an iteration is from the poll's return to the next call: less than what the
// kernel sees by the time from switch-in to user space. Iterations that were not meant to last THRESHOLD_MS
// and did so are counted twice: `over` lasted it, `near` may have in the kernel's eyes (2 ms less). Nothing
// is near on a quiet machine.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NEAR_NS 2000000

enum wake { WAKE_TIMEOUT, WAKE_TIMERFD, WAKE_EVENTFD, NR_WAKES };

// One line of cache each: written by its own loop only.
struct loop {
  _Alignas(64) uint64_t iterations, planned, over, near;
  int event_fd;
};

struct shared {
  atomic_int ready;
  atomic_uint change;  // counts commands: loops look at it when they wake
  atomic_long period_us, burst, stall_ns, threshold_ns;
  struct loop loops[];
};

static struct shared *shared;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void sleep_ns(long ns) {
  struct timespec t = {ns / 1000000000, ns % 1000000000};
  while (nanosleep(&t, &t)) continue;
}

static void watch(int epfd, int fd) {
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  if (fd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e)) fail("watch");
}

static void set_timer(int fd, long period_us, size_t index) {
  const struct timespec period = {period_us / 1000000, period_us % 1000000 * 1000};
  // Not all at once: the first tick is anywhere in the first period.
  const uint64_t first = (uint64_t)period_us * 1000 * (index * 2654435761u % 1000 + 1) / 1000;
  const struct itimerspec t = {period, {(time_t)(first / 1000000000), (long)(first % 1000000000)}};
  if (timerfd_settime(fd, 0, &t, NULL)) fail("timerfd_settime");
}

static void run_callback(struct loop *me, uint64_t began) {
  const long stall = atomic_load_explicit(&shared->stall_ns, memory_order_relaxed);
  const uint64_t threshold = (uint64_t)atomic_load_explicit(&shared->threshold_ns, memory_order_relaxed);
  if (stall) {
    sleep_ns(stall);
    me->planned++;
  }
  if (!threshold || stall) return;
  const uint64_t took = now_ns() - began;
  me->over += took >= threshold;
  me->near += took + NEAR_NS >= threshold;
}

static void *run_loop(void *arg) {
  struct loop *me = arg;
  const size_t index = (size_t)(me - shared->loops);
  const enum wake kind = index % NR_WAKES;
  const int epfd = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  unsigned known = UINT32_MAX;
  int timeout = -1;
  long burst = 1;
  if (kind == WAKE_TIMERFD) watch(epfd, timer);
  watch(epfd, me->event_fd);
  atomic_fetch_add(&shared->ready, 1);
  for (;;) {
    struct epoll_event event;
    const int n = epoll_wait(epfd, &event, 1, timeout);
    const uint64_t began = now_ns();
    uint64_t value;
    if (n > 0 && read(event.data.fd, &value, sizeof value) < 0) fail("read");
    me->iterations++;
    const unsigned change = atomic_load_explicit(&shared->change, memory_order_acquire);
    if (change != known) {
      known = change;
      const long period = atomic_load(&shared->period_us);
      burst = atomic_load(&shared->burst);
      timeout = kind == WAKE_TIMEOUT && period ? (int)(period / 1000) : -1;
      if (kind == WAKE_TIMERFD) set_timer(timer, period, index);
      continue;
    }
    run_callback(me, began);
    for (long i = 1; i < burst; i++) {
      epoll_wait(epfd, &event, 1, 0);
      me->iterations++;
    }
  }
  return NULL;
}

static int is_driven(const struct loop *loop) { return (loop - shared->loops) % NR_WAKES == WAKE_EVENTFD; }

// Wakes the process's eventfd loops, evenly over the period.
static void drive(struct loop *first, size_t count) {
  long driven = 0;
  for (size_t i = 0; i < count; i++) driven += is_driven(&first[i]);
  for (;;) {
    const long period = driven ? atomic_load(&shared->period_us) : 0;
    if (!period) sleep_ns(100000000);
    for (size_t i = 0; period && i < count; i++) {
      if (!is_driven(&first[i])) continue;
      sleep_ns(period * 1000 / driven);
      if (eventfd_write(first[i].event_fd, 1)) fail("eventfd_write");
    }
  }
}

static void run_process(struct loop *first, size_t count) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  close_range(3, (unsigned)first->event_fd - 1, 0);  // those of the processes before it
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 64 << 10);
  for (size_t i = 0; i < count; i++) {
    pthread_t thread;
    if (pthread_create(&thread, &attr, run_loop, &first[i])) fail("pthread_create");
  }
  drive(first, count);
}

static void tell_all(size_t loops) {
  atomic_fetch_add(&shared->change, 1);
  for (size_t i = 0; i < loops; i++) {
    if (eventfd_write(shared->loops[i].event_fd, 1)) fail("eventfd_write");
  }
}

static void print_stats(size_t loops, const pid_t *pids, size_t processes) {
  uint64_t iterations = 0, planned = 0, over = 0, near = 0, cpu = 0;
  for (size_t i = 0; i < loops; i++) {
    const volatile struct loop *l = &shared->loops[i];
    iterations += l->iterations;
    planned += l->planned;
    over += l->over;
    near += l->near;
  }
  for (size_t i = 0; i < processes; i++) {
    clockid_t clock;
    struct timespec t;
    if (!clock_getcpuclockid(pids[i], &clock) && !clock_gettime(clock, &t))
      cpu += (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
  }
  printf("{\"ns\":%lu,\"iterations\":%lu,\"cpu_ns\":%lu,\"planned\":%lu,\"over\":%lu,\"near\":%lu}\n",
         now_ns(), iterations, cpu, planned, over, near);
}

int main(int argc, char **argv) {
  const size_t loops = argc > 2 ? strtoul(argv[1], NULL, 10) : 0,
               processes = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
  if (!processes || loops < processes) {
    fprintf(stderr, "usage: bench_loops LOOPS PROCESSES, with LOOPS >= PROCESSES\n");
    return 2;
  }
  shared = mmap(NULL, sizeof *shared + loops * sizeof *shared->loops, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t *pids = calloc(processes, sizeof *pids);
  if (shared == MAP_FAILED || !pids) fail("memory");
  const struct rlimit files = {1 << 20, 1 << 20};
  setrlimit(RLIMIT_NOFILE, &files);
  for (size_t p = 0; p < processes; p++) {
    const size_t from = loops * p / processes, to = loops * (p + 1) / processes;
    for (size_t i = from; i < to; i++) {
      if ((shared->loops[i].event_fd = eventfd(0, 0)) < 0) fail("eventfd");
    }
    pids[p] = fork();
    if (pids[p] < 0) fail("fork");
    if (!pids[p]) run_process(&shared->loops[from], to - from);
  }
  while ((size_t)atomic_load(&shared->ready) < loops) sleep_ns(10000000);
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("ready\n");
  char word[16];
  while (scanf(" %15s", word) == 1) {
    double a;
    long b;
    if (!strcmp(word, "rate") && scanf("%lf %ld", &a, &b) == 2) {
      atomic_store(&shared->burst, b);
      atomic_store(&shared->period_us, a > 0 ? (long)(1e6 / a) : 0);
      tell_all(loops);
    } else if (!strcmp(word, "stall") && scanf("%lf %ld", &a, &b) == 2) {
      atomic_store(&shared->threshold_ns, b * 1000000);
      atomic_store(&shared->stall_ns, (long)(a * 1e6));
    } else if (!strcmp(word, "stats")) {
      print_stats(loops, pids, processes);
    }
  }
  for (size_t p = 0; p < processes; p++) kill(pids[p], SIGKILL);
  return 0;
}
