// SPDX-License-Identifier: Apache-2.0
// What is timed: prints nanoseconds per operation of one kind of work, over --ms of it.
//   epoll     epoll_wait with timeout 0 on a ready eventfd: a loop that never sleeps, with nothing else to do
//   getpid    a system call that has nothing to do with polling: what other processes pay
//   pingpong  two threads, a loop in epoll and its peer, waking each other through eventfds
// Commands on standard input: "run KIND MS" -> one line "NANOSECONDS"; ends with its input.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void watch(int epfd, int fd) {
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e)) exit(1);
}

static double time_epoll(uint64_t for_ns) {
  static int epfd = -1;
  if (epfd < 0) {
    epfd = epoll_create1(0);
    watch(epfd, eventfd(1, 0));
  }
  struct epoll_event e;
  uint64_t n = 0;
  const uint64_t start = now_ns();
  uint64_t end;
  do {
    for (int i = 0; i < 1000; ++i) epoll_wait(epfd, &e, 1, 0);
    n += 1000;
    end = now_ns();
  } while (end - start < for_ns);
  return (double)(end - start) / (double)n;
}

static double time_getpid(uint64_t for_ns) {
  uint64_t n = 0, end;
  const uint64_t start = now_ns();
  do {
    for (int i = 0; i < 1000; ++i) syscall(SYS_getppid);
    n += 1000;
    end = now_ns();
  } while (end - start < for_ns);
  return (double)(end - start) / (double)n;
}

static int ping, pong;

static void *peer(void *unused) {
  eventfd_t v;
  while (!eventfd_read(ping, &v)) eventfd_write(pong, 1);
  return unused;
}

static double time_pingpong(uint64_t for_ns) {
  static int epfd = -1;
  if (epfd < 0) {
    ping = eventfd(0, 0);
    pong = eventfd(0, 0);
    epfd = epoll_create1(0);
    watch(epfd, pong);
    pthread_t t;
    pthread_create(&t, NULL, peer, NULL);
  }
  struct epoll_event e;
  eventfd_t v;
  uint64_t n = 0, end;
  const uint64_t start = now_ns();
  do {
    for (int i = 0; i < 100; ++i) {
      eventfd_write(ping, 1);
      epoll_wait(epfd, &e, 1, -1);
      eventfd_read(pong, &v);
    }
    n += 100;
    end = now_ns();
  } while (end - start < for_ns);
  return (double)(end - start) / (double)n;
}

int main(void) {
  char kind[32];
  long ms;
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("ready %d\n", getpid());
  while (scanf(" run %31s %ld", kind, &ms) == 2) {
    const uint64_t ns = (uint64_t)ms * 1000000ull;
    double result = 0;
    if (!strcmp(kind, "epoll")) result = time_epoll(ns);
    if (!strcmp(kind, "getpid")) result = time_getpid(ns);
    if (!strcmp(kind, "pingpong")) result = time_pingpong(ns);
    printf("%.2f\n", result);
  }
}
