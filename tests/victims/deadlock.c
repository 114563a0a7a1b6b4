// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback locks a mutex twice and so waits for ever. Kill it.
#include "victim.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static NOINLINE void lock_twice(const struct options *o) {
  (void)o;
  pthread_mutex_lock(&lock);
  LAST_STALL("lock", pthread_mutex_lock(&lock));
}

static void loop(const struct options *o) { run_epoll_loop(o, lock_twice); }

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.count = 1});
  o.threads = 1;
  return run_victim(&o, loop);
}
