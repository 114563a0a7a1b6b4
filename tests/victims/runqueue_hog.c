// SPDX-License-Identifier: Apache-2.0
// An epoll loop pinned to one CPU together with --depth (default 3) processes that compute all the time.
// Its callback needs only a quarter of --stall-ms of CPU and waits for the rest in the run queue.
#include "victim.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static void pin_to_one_cpu(void) {
  cpu_set_t allowed, one;
  must(sched_getaffinity(0, sizeof(allowed), &allowed), "sched_getaffinity");
  int cpu = CPU_SETSIZE - 1;
  while (cpu > 0 && !CPU_ISSET(cpu, &allowed)) cpu--;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  must(sched_setaffinity(0, sizeof(one), &one), "sched_setaffinity");
}

static pid_t start_hog(void) {
  const pid_t pid = must(fork(), "fork");
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "hog");
  for (;;) spin_ns(ms(1000));
}

static NOINLINE void compute(uint64_t cpu_ns) {
  for (const uint64_t end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + cpu_ns;
       clock_ns(CLOCK_THREAD_CPUTIME_ID) < end;) {
  }
}

static NOINLINE void compute_among_hogs(const struct options *o) {
  STALL("runqueue", compute(ms(o->stall_ms) / (uint64_t)(o->depth + 1)));
}

static void loop(const struct options *o) { run_epoll_loop(o, compute_among_hogs); }

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.depth = 3, .stall_ms = 200});
  o.threads = 1;
  pid_t hogs[64];
  if (o.depth > 64) o.depth = 64;
  pin_to_one_cpu();
  for (int i = 0; i < o.depth; i++) hogs[i] = start_hog();
  const int code = run_victim(&o, loop);
  for (int i = 0; i < o.depth; i++) {
    kill(hogs[i], SIGKILL);
    waitpid(hogs[i], 0, 0);
  }
  return code;
}
