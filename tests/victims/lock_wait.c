// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback takes a mutex that the thread "holder" keeps for --stall-ms. Prints its
// address.
#include "victim.h"

static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;

static void take(void *arg) { pthread_mutex_lock(arg); }
static void give(void *arg) { pthread_mutex_unlock(arg); }
static struct helper holder = {.before = take, .after = give, .arg = &cache_lock};

static NOINLINE void lock_in_callback(const struct options *o) {
  holder.delay_ns = ms(o->stall_ms);
  // The handshake with the holder belongs to the iteration.
  STALL("lock", helper_ask(&holder); pthread_mutex_lock(&cache_lock));
  pthread_mutex_unlock(&cache_lock);
}

static void loop(const struct options *o) {
  dprintf(STDOUT_FILENO, "{\"mutex\":\"0x%lx\"}\n", (unsigned long)&cache_lock);
  helper_start(&holder, "holder");
  run_epoll_loop(o, lock_in_callback);
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  return run_victim(&o, loop);
}
