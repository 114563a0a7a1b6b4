// SPDX-License-Identifier: Apache-2.0
// The floor of any tracer on the same hooks: programs that only return, attached where looptrace attaches.
//   empty_programs always   sched_switch, the tick, and the entry tracepoints of every poll
//   empty_programs auto     sched_switch, the tick
// Prints "ready" once attached; ends with its input.
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

namespace {

const bpf_insn kReturn[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};

bool attach_raw(btf* kernel, const char* tracepoint) {
  const int id =
      btf__find_by_name_kind(kernel, (std::string("btf_trace_") + tracepoint).c_str(), BTF_KIND_TYPEDEF);
  LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_RAW_TP,
              .attach_btf_id = static_cast<__u32>(id));
  const int prog = bpf_prog_load(BPF_PROG_TYPE_TRACING, "empty", "GPL", kReturn, 2, &opts);
  return prog >= 0 && bpf_raw_tracepoint_open(nullptr, prog) >= 0;
}

bool attach_syscall(const char* name) {
  std::ifstream file(std::string("/sys/kernel/tracing/events/syscalls/sys_enter_") + name + "/id");
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_TRACEPOINT;
  if (!(file >> attr.config)) return true;  // this kernel lacks the call
  attr.sample_period = 1;
  const int prog = bpf_prog_load(BPF_PROG_TYPE_TRACEPOINT, "empty", "GPL", kReturn, 2, nullptr);
  const int event = static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0));
  return prog >= 0 && event >= 0 && ioctl(event, PERF_EVENT_IOC_SET_BPF, prog) == 0 &&
         ioctl(event, PERF_EVENT_IOC_ENABLE, 0) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  btf* kernel = btf__load_vmlinux_btf();
  bool ok = kernel && attach_raw(kernel, "sched_switch") && attach_raw(kernel, "local_timer_entry");
  if (argc > 1 && !std::strcmp(argv[1], "always")) {
    for (const char* name : {"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select",
                             "pselect6", "io_uring_enter"}) {
      ok = ok && attach_syscall(name);
    }
  }
  if (!ok) {
    std::perror("attach empty programs");
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}
