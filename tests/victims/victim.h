// SPDX-License-Identifier: Apache-2.0
// What the victims share: options, clocks, a schedule of stalls, and the log of what truly happened.
// Include it first, for _GNU_SOURCE.
//
// Every victim takes --count N --stall-ms M --gap-ms G --delay-ms D --threads N --work-us K --depth D
// --flavour F --dir PATH, as far as it has a use for them. Before the first stall (--delay-ms, which SIGUSR1
// cuts short) and between stalls (--gap-ms) a loop polls every 5 ms. Exit 77: this kernel refuses what the
// victim needs (see stderr).
//
// It prints "ready PID" first and its log last (read it all the while: a full pipe is a stall too):
//   {"start_ns","end_ns","cpu_ns","run_ns","runq_ns","kind","fn","file","line","pid","tid","comm"}   a stall
//   {"loop","iterations","start_ns","end_ns","pid","tid"}                                            a loop
// A stall that never ends has neither "end_ns" nor costs. Times are CLOCK_MONOTONIC; cpu_ns is the thread's
// CPU clock; run_ns and runq_ns are its schedstat, which counts a running thread only up to the last tick.
#ifndef VICTIM_H
#define VICTIM_H

// Every caller stays on the stack: no inlining, no tail calls.
#ifdef __clang__
#define NOINLINE __attribute__((noinline, disable_tail_calls))
#else
#pragma GCC optimize("no-optimize-sibling-calls")
#define NOINLINE __attribute__((noinline, noclone))
#endif

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

enum { TICK_MS = 5, EXIT_SKIP = 77, LONGEST_RUN_S = 600 };

static inline void fail(const char *what) {
  perror(what);
  exit(1);
}

static inline int must(int result, const char *what) {
  if (result < 0) fail(what);
  return result;
}

static UNUSED void skip(const char *what) {
  fprintf(stderr, "skip: %s: %s\n", what, strerror(errno));
  exit(EXIT_SKIP);
}

// ---------------------------------------------------------------- options

struct options {
  int count, threads, depth;
  long stall_ms, gap_ms, delay_ms, work_us;
  const char *flavour, *dir;
};

static UNUSED struct options parse_options(int argc, char **argv, struct options o) {
  static const struct option known[] = {
      {"count", required_argument, 0, 'c'},   {"stall-ms", required_argument, 0, 's'},
      {"gap-ms", required_argument, 0, 'g'},  {"delay-ms", required_argument, 0, 'd'},
      {"threads", required_argument, 0, 't'}, {"work-us", required_argument, 0, 'w'},
      {"depth", required_argument, 0, 'D'},   {"flavour", required_argument, 0, 'f'},
      {"dir", required_argument, 0, 'p'},     {0, 0, 0, 0},
  };
  if (!o.count) o.count = 3;
  if (!o.threads) o.threads = 1;
  if (!o.stall_ms) o.stall_ms = 100;
  if (!o.gap_ms) o.gap_ms = 50;
  if (!o.flavour) o.flavour = "";
  if (!o.dir) o.dir = "/var/tmp";
  for (int c; (c = getopt_long(argc, argv, "", known, 0)) != -1;) {
    switch (c) {
      case 'c':
        o.count = atoi(optarg);
        break;
      case 's':
        o.stall_ms = atol(optarg);
        break;
      case 'g':
        o.gap_ms = atol(optarg);
        break;
      case 'd':
        o.delay_ms = atol(optarg);
        break;
      case 't':
        o.threads = atoi(optarg);
        break;
      case 'w':
        o.work_us = atol(optarg);
        break;
      case 'D':
        o.depth = atoi(optarg);
        break;
      case 'f':
        o.flavour = optarg;
        break;
      case 'p':
        o.dir = optarg;
        break;
      default:
        exit(2);
    }
  }
  sigset_t told;
  sigemptyset(&told);
  sigaddset(&told, SIGUSR1);
  sigprocmask(SIG_BLOCK, &told, 0);  // stays pending, and interrupts no poll
  alarm(LONGEST_RUN_S);              // none outlives a test run that forgot it
  return o;
}

// SIGUSR1 has come: whoever waits for --delay-ms need not.
static inline bool was_told(void) {
  sigset_t pending;
  return !sigpending(&pending) && sigismember(&pending, SIGUSR1) == 1;
}

static inline bool flavour_is(const struct options *o, const char *name) { return !strcmp(o->flavour, name); }

static UNUSED void say_ready(void) { dprintf(STDOUT_FILENO, "ready %d\n", getpid()); }

// ---------------------------------------------------------------- clocks

static inline uint64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}
static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline uint64_t ms(long n) { return (uint64_t)n * 1000000ull; }

static inline void sleep_ns(uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000ull), (long)(ns % 1000000000ull)};
  while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR) {
  }
}

// Burns CPU until this much wall time has passed.
static inline void spin_ns(uint64_t ns) {
  for (const uint64_t end = now_ns() + ns; now_ns() < end;) {
  }
}

// ---------------------------------------------------------------- the log

struct mark {
  uint64_t start_ns, cpu_ns, run_ns, runq_ns;
};

struct truth {
  struct mark from, to;
  const char *kind, *fn, *file;
  int line, tid;
  char comm[16];
};

enum { MAX_TRUTHS = 65536 };
static struct truth truths[MAX_TRUTHS];
static atomic_int truth_count;

// Run and wait time of this thread, as the scheduler counts them.
static inline void read_schedstat(uint64_t *run_ns, uint64_t *runq_ns) {
  static _Thread_local int fd = -1;
  static _Thread_local int owner;
  if (fd < 0 || owner != gettid()) {  // a forked child has its parent's
    fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    owner = gettid();
  }
  char text[96] = "";
  unsigned long long run = 0, wait = 0;
  if (fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) > 0) sscanf(text, "%llu %llu", &run, &wait);
  *run_ns = run;
  *runq_ns = wait;
}

static inline struct mark mark_now(void) {
  struct mark m;
  read_schedstat(&m.run_ns, &m.runq_ns);
  m.cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  m.start_ns = now_ns();
  return m;
}

static inline struct truth truth_of(struct mark from, const char *kind, const char *fn, const char *file,
                                    int line) {
  struct truth t = {.from = from, .kind = kind, .fn = fn, .file = file, .line = line, .tid = gettid()};
  t.to = mark_now();
  prctl(PR_GET_NAME, t.comm);
  return t;
}

static UNUSED void log_stall(struct mark from, const char *kind, const char *fn, const char *file, int line) {
  const struct truth t = truth_of(from, kind, fn, file, line);
  const int i = atomic_fetch_add(&truth_count, 1);
  if (i < MAX_TRUTHS) truths[i] = t;
}

static UNUSED void print_truth(const struct truth *t, bool ended) {
  const char *slash = strrchr(t->file, '/');
  char end[128] = "";
  if (ended) {
    snprintf(end, sizeof(end), "\"end_ns\":%llu,\"cpu_ns\":%llu,\"run_ns\":%llu,\"runq_ns\":%llu,",
             (unsigned long long)t->to.start_ns, (unsigned long long)(t->to.cpu_ns - t->from.cpu_ns),
             (unsigned long long)(t->to.run_ns - t->from.run_ns),
             (unsigned long long)(t->to.runq_ns - t->from.runq_ns));
  }
  dprintf(
      STDOUT_FILENO,
      "{\"start_ns\":%llu,%s\"kind\":\"%s\",\"fn\":\"%s\",\"file\":\"%s\",\"line\":%d,\"pid\":%d,\"tid\":%d,"
      "\"comm\":\"%s\"}\n",
      (unsigned long long)t->from.start_ns, end, t->kind, t->fn, slash ? slash + 1 : t->file, t->line,
      getpid(), t->tid, t->comm);
}

static UNUSED void print_truths(void) {
  const int n = atomic_load(&truth_count);
  for (int i = 0; i < n && i < MAX_TRUTHS; i++) print_truth(&truths[i], true);
}

// Runs a statement that is a stall, and logs it: fn and line are those of the statement. Keep it on one line.
#define STALL(kind, ...)                                  \
  do {                                                    \
    const struct mark mark_ = mark_now();                 \
    __VA_ARGS__;                                          \
    log_stall(mark_, kind, __func__, __FILE__, __LINE__); \
  } while (0)

// The same for a stall that does not return: its line is printed before.
#define LAST_STALL(kind, ...)                                                             \
  do {                                                                                    \
    const struct truth truth_ = truth_of(mark_now(), kind, __func__, __FILE__, __LINE__); \
    print_truth(&truth_, false);                                                          \
    __VA_ARGS__;                                                                          \
  } while (0)

// ---------------------------------------------------------------- loops

// When a loop stalls: --count times, --gap-ms apart, after --delay-ms; then it runs for one more gap.
struct schedule {
  const struct options *options;
  int left;
  bool begun;
  uint64_t start_ns, next_ns, iterations;
};

static inline struct schedule schedule_start(const struct options *o) {
  const uint64_t now = now_ns();
  return (struct schedule){
      .options = o, .left = o->count, .start_ns = now, .next_ns = now + ms(o->delay_ms + o->gap_ms)};
}

// Called once an iteration, after the poll.
static inline bool stall_is_due(struct schedule *s) {
  s->iterations++;
  if (!s->begun && (now_ns() >= s->next_ns || was_told())) {
    const uint64_t soon = now_ns() + ms(s->options->gap_ms);
    if (soon < s->next_ns) s->next_ns = soon;
    s->begun = true;
  }
  return s->left > 0 && now_ns() >= s->next_ns;
}

static inline void stall_is_done(struct schedule *s) {
  s->left--;
  s->next_ns = now_ns() + ms(s->options->gap_ms);
}

static inline bool schedule_is_over(const struct schedule *s) {
  return s->left <= 0 && now_ns() >= s->next_ns;
}

static UNUSED void print_loop(const struct schedule *s, const char *kind) {
  dprintf(STDOUT_FILENO,
          "{\"loop\":\"%s\",\"iterations\":%llu,\"start_ns\":%llu,\"end_ns\":%llu,\"pid\":%d,\"tid\":%d}\n",
          kind, (unsigned long long)s->iterations, (unsigned long long)s->start_ns,
          (unsigned long long)now_ns(), getpid(), gettid());
}

static UNUSED int make_ticker(long period_ms) {
  const int fd = must(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create");
  const struct timespec period = {period_ms / 1000, period_ms % 1000 * 1000000};
  const struct itimerspec spec = {.it_interval = period, .it_value = period};
  must(timerfd_settime(fd, 0, &spec, 0), "timerfd_settime");
  return fd;
}

static UNUSED void drain(int fd) {
  uint64_t n;
  if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN) fail("read");
}

static UNUSED void watch(int epfd, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  must(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

// An epoll loop woken by a ticker; `callback` is what it does when a stall is due.
static UNUSED NOINLINE void run_epoll_loop(const struct options *o,
                                           void (*callback)(const struct options *)) {
  const int epfd = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  const int ticker = make_ticker(TICK_MS);
  watch(epfd, ticker);
  struct schedule s = schedule_start(o);
  while (!schedule_is_over(&s)) {
    struct epoll_event event;
    if (epoll_wait(epfd, &event, 1, -1) < 0) {
      if (errno == EINTR) continue;
      fail("epoll_wait");
    }
    drain(ticker);
    if (stall_is_due(&s)) {
      callback(o);
      stall_is_done(&s);
    }
  }
  print_loop(&s, "epoll");
  close(ticker);
  close(epfd);
}

// ---------------------------------------------------------------- threads

static UNUSED pthread_t start_thread(void *(*body)(void *), void *arg, const char *name) {
  pthread_t thread;
  if (pthread_create(&thread, 0, body, arg)) fail("pthread_create");
  if (name) pthread_setname_np(thread, name);
  return thread;
}

struct loop_thread {
  const struct options *options;
  void (*loop)(const struct options *);
};

static UNUSED void *loop_thread_body(void *arg) {
  const struct loop_thread *t = arg;
  t->loop(t->options);
  return 0;
}

// The whole of most victims: says ready, runs `loop` on the main thread, or on --threads others, prints the
// log. A loop thread does nothing after its loop: waiting for the others would be a stall.
static UNUSED NOINLINE int run_victim(const struct options *o, void (*loop)(const struct options *)) {
  say_ready();
  if (o->threads == 1) {
    loop(o);
  } else {
    struct loop_thread t = {o, loop};
    pthread_t *threads = calloc((size_t)o->threads, sizeof(*threads));
    for (int i = 0; i < o->threads; i++) threads[i] = start_thread(loop_thread_body, &t, 0);
    for (int i = 0; i < o->threads; i++) pthread_join(threads[i], 0);
    free(threads);
  }
  print_truths();
  return 0;
}

// A thread that does something a while after it was asked to: what ends a wait of the loop.
struct helper {
  int requests;  // eventfd
  uint64_t delay_ns;
  void (*before)(void *), (*after)(void *);  // before is done at once, when asked; may be null
  void *arg;
  atomic_bool began;
};

static UNUSED void *helper_body(void *arg) {
  struct helper *h = arg;
  for (;;) {
    uint64_t n;
    if (read(h->requests, &n, sizeof(n)) < 0) fail("read");
    if (h->before) h->before(h->arg);
    atomic_store(&h->began, true);
    sleep_ns(h->delay_ns);
    h->after(h->arg);
  }
  return 0;
}

static UNUSED void helper_start(struct helper *h, const char *name) {
  h->requests = must(eventfd(0, EFD_CLOEXEC), "eventfd");
  start_thread(helper_body, h, name);
}

// Returns when the helper is past `before`.
static UNUSED void helper_ask(struct helper *h) {
  const uint64_t one = 1;
  atomic_store(&h->began, false);
  if (write(h->requests, &one, sizeof(one)) < 0) fail("write");
  while (!atomic_load(&h->began)) {
  }
}

#endif  // VICTIM_H
