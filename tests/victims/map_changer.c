// SPDX-License-Identifier: Apache-2.0
// Changes a BPF map without end, at the lowest priority: while it is preempted in there the kernel runs no
// program on a tracepoint of perf's on that CPU. No loop.
#include "victim.h"

#include <linux/bpf.h>
#include <sched.h>

static int bpf_call(int command, union bpf_attr *attr) {
  return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

int main(int argc, char **argv) {
  (void)parse_options(argc, argv, (struct options){0});
  enum { BYTES = 1 << 20 };  // large, so that most of the time goes to the copy
  union bpf_attr attr = {
      .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = BYTES, .max_entries = 1};
  const int map = must(bpf_call(BPF_MAP_CREATE, &attr), "BPF_MAP_CREATE");
  const uint32_t key = 0;
  void *const value = calloc(1, BYTES);
  const struct sched_param none = {0};
  must(sched_setscheduler(0, SCHED_IDLE, &none), "sched_setscheduler");
  say_ready();
  for (;;) {
    attr = (union bpf_attr){.map_fd = (uint32_t)map, .key = (uintptr_t)&key, .value = (uintptr_t)value};
    must(bpf_call(BPF_MAP_UPDATE_ELEM, &attr), "BPF_MAP_UPDATE_ELEM");
  }
}
