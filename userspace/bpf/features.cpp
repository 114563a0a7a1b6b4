// SPDX-License-Identifier: Apache-2.0
#include "bpf/features.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/fd.h"
#include "base/files.h"
#include "base/free_with.h"

namespace looptrace {

namespace {

using BtfPtr = std::unique_ptr<btf, FreeWith<btf__free>>;

Capability kernel_version() {
  utsname u;
  uname(&u);
  int major = 0, minor = 0;
  std::sscanf(u.release, "%d.%d", &major, &minor);
  Capability c;
  c.name = "kernel";
  c.required = true;
  c.available = major > 5 || (major == 5 && minor >= 18);
  c.detail = std::string(u.release) + " " + u.machine;
  if (!c.available) {
    c.mend =
        "looptrace needs Linux 5.18 or later (sched_switch's prev_state argument, bpf_loop, task storage)";
  }
#ifndef __x86_64__
#error "looptrace knows x86-64's registers and system calls only: see bpf/arch.h"
#endif
  return c;
}

Capability effective_capabilities() {
  Capability c;
  c.name = "privileges";
  c.required = true;
  uint64_t effective = 0;
  if (auto status = read_file("/proc/self/status")) {
    if (const size_t at = status->find("CapEff:"); at != std::string::npos) {
      effective = std::strtoull(status->c_str() + at + 7, nullptr, 16);
    }
  }
  const auto has = [&](unsigned bit) { return (effective >> bit) & 1; };
  const bool admin = has(CAP_SYS_ADMIN);
  std::string missing;
  const auto need = [&](bool ok, const char* name) {
    if (!ok) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  need(has(CAP_BPF) || admin, "CAP_BPF");
  need(has(CAP_PERFMON) || admin, "CAP_PERFMON");
  need(has(CAP_SYS_PTRACE), "CAP_SYS_PTRACE");
  need(has(CAP_DAC_READ_SEARCH), "CAP_DAC_READ_SEARCH");
  c.available = missing.empty();
  c.detail =
      missing.empty() ? "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH" : "missing: " + missing;
  if (!c.available) c.mend = "run it as root (sudo looptrace ...), or give it " + missing;
  return c;
}

Capability btf_present() {
  Capability c;
  c.name = "btf";
  c.required = true;
  c.available = exists("/sys/kernel/btf/vmlinux");
  c.detail = c.available ? "/sys/kernel/btf/vmlinux" : "/sys/kernel/btf/vmlinux is absent";
  if (!c.available)
    c.mend = "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (every current distribution's is)";
  return c;
}

Capability helper(const char* name, bpf_prog_type type, bpf_func_id id, const char* since) {
  Capability c;
  c.name = name;
  c.required = true;
  const int r = libbpf_probe_bpf_helper(type, id, nullptr);
  c.available = r == 1;
  c.detail = r == 1   ? "available"
             : r == 0 ? "not in this kernel"
                      : "could not be tried: " + std::string(std::strerror(-r));
  if (!c.available) c.mend = r < 0 ? "run it as root" : std::string("needs Linux ") + since;
  return c;
}

Capability map_type(const char* name, bpf_map_type type, const char* since) {
  Capability c;
  c.name = name;
  c.required = true;
  const int r = libbpf_probe_bpf_map_type(type, nullptr);
  c.available = r == 1;
  c.detail = r == 1   ? "available"
             : r == 0 ? "not in this kernel, or not permitted"
                      : "could not be tried: " + std::string(std::strerror(-r));
  if (!c.available) c.mend = std::string("needs root and Linux ") + since;
  return c;
}

Capability tracefs() {
  Capability c;
  c.name = "tracefs";
  c.available = exists("/sys/kernel/tracing/events") || exists("/sys/kernel/debug/tracing/events");
  c.detail = c.available ? "readable" : "not mounted, or not readable";
  if (!c.available) {
    c.mend = "mount -t tracefs nodev /sys/kernel/tracing; without it --hook always needs fentry";
  }
  return c;
}

// Loads and attaches an empty fentry program: some kernels accept the first and refuse the second.
Capability fentry(const btf* kernel) {
  Capability c;
  c.name = "fentry";
  c.mend =
      "none needed: looptrace uses the scheduler's tracepoints and a probe instead; with fentry every poll "
      "is "
      "seen at no cost to other processes";
  // Switched off, fentry programs load and attach, and never run.
  if (const auto on = read_file("/proc/sys/kernel/ftrace_enabled"); on && trim(*on) == "0") {
    c.detail = "kernel.ftrace_enabled is 0";
    c.mend = "sysctl kernel.ftrace_enabled=1: with fentry every poll is seen at no cost to other processes";
    return c;
  }
  if (!kernel) {
    c.detail = "no kernel BTF";
    return c;
  }
  const int id = btf__find_by_name_kind(kernel, "__x64_sys_epoll_wait", BTF_KIND_FUNC);
  if (id < 0) {
    c.detail = "__x64_sys_epoll_wait is not in the kernel's BTF";
    return c;
  }
  const bpf_insn insns[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_FENTRY,
              .attach_btf_id = static_cast<__u32>(id));
  UniqueFd prog(bpf_prog_load(BPF_PROG_TYPE_TRACING, "lt_try", "GPL", insns, 2, &opts));
  if (!prog) {
    c.detail = "refused to load: " + std::string(std::strerror(errno));
    return c;
  }
  UniqueFd link(bpf_raw_tracepoint_open(nullptr, prog.get()));
  c.available = static_cast<bool>(link);
  c.detail = c.available ? "available" : "refused to attach: " + std::string(std::strerror(errno));
  if (c.available) c.mend.clear();
  return c;
}

Capability map_files() {
  Capability c;
  c.name = "map_files";
  c.required = true;
  DIR* dir = opendir("/proc/1/map_files");
  c.available = dir && readdir(dir) != nullptr;
  c.detail = c.available ? "readable" : "/proc/1/map_files: " + std::string(std::strerror(errno));
  if (dir) closedir(dir);
  if (!c.available)
    c.mend = "needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (or CAP_SYS_ADMIN), and hostPID in a container";
  return c;
}

Capability tick(const btf* kernel) {
  Capability c;
  c.name = "timer_tick";
  c.available = kernel && btf__find_by_name_kind(kernel, "btf_trace_local_timer_entry", BTF_KIND_TYPEDEF) > 0;
  c.detail = c.available ? "loops that run late are sampled by the tick that runs anyway"
                         : "no irq_vectors:local_timer_entry";
  if (!c.available) c.mend = "use --sample-hz 99: looptrace then samples by perf's CPU clock";
  return c;
}

Capability kernel_symbols() {
  Capability c;
  c.name = "kernel_symbols";
  // The beginning is enough: the whole file is megabytes, and hidden addresses are zero from the first line
  // on.
  UniqueFd fd(open("/proc/kallsyms", O_RDONLY | O_CLOEXEC));
  std::array<char, 32768> text;
  const ssize_t n = fd ? read(fd.get(), text.data(), text.size()) : -1;
  if (n > 0) {
    for (const auto line : split(std::string_view(text.data(), static_cast<size_t>(n)), '\n')) {
      if (line.size() > 16 && line.find_first_not_of('0') < 16) c.available = true;
    }
  }
  c.detail = c.available ? "readable" : "/proc/kallsyms hides addresses: kernel frames have no names";
  // kptr_restrict = 1 asks for CAP_SYSLOG; 0 is satisfied by a perf_event_paranoid of at most 1
  // (kallsyms_show_value).
  if (!c.available)
    c.mend =
        "as root: sysctl kernel.kptr_restrict=1 (or 0); as another user: sysctl kernel.kptr_restrict=0 "
        "kernel.perf_event_paranoid=1";
  return c;
}

Capability bpf_stats() {
  Capability c;
  c.name = "bpf_stats";
  if (auto text = read_file("/proc/sys/kernel/bpf_stats_enabled")) c.available = trim(*text) == "1";
  c.detail = c.available ? "on: summaries tell the programs' run time; costs about 70 ns a run" : "off";
  if (!c.available)
    c.mend = "none needed; sysctl kernel.bpf_stats_enabled=1 to see the BPF programs' own run time";
  return c;
}

}  // namespace

std::vector<Capability> probe_features() {
  libbpf_set_print([](libbpf_print_level, const char*, va_list) { return 0; });
  const BtfPtr kernel(btf__load_vmlinux_btf());  // once: parsing it takes 70 ms
  return {
      kernel_version(),
      effective_capabilities(),
      btf_present(),
      map_type("ring_buffer", BPF_MAP_TYPE_RINGBUF, "5.8"),
      map_type("task_storage", BPF_MAP_TYPE_TASK_STORAGE, "5.11"),
      helper("task_pt_regs", BPF_PROG_TYPE_KPROBE, BPF_FUNC_task_pt_regs, "5.15"),
      helper("bpf_loop", BPF_PROG_TYPE_KPROBE, BPF_FUNC_loop, "5.17"),
      map_files(),
      fentry(kernel.get()),
      tracefs(),
      tick(kernel.get()),
      kernel_symbols(),
      bpf_stats(),
  };
}

Result<void> require_features(const std::vector<Capability>& features) {
  for (const Capability& c : features) {
    if (c.required && !c.available) {
      return Error{"this host lacks what looptrace needs: " + c.name + " (" + c.detail + "); " + c.mend, 0,
                   Fault::unsupported};
    }
  }
  return {};
}

}  // namespace looptrace
