// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "record/stall.h"
#include "targets/cgroup.h"
#include "targets/procfs.h"

namespace looptrace {

struct ThreadFacts {
  pid_t tid = 0;
  std::string comm;
};

/// A process as /proc shows it at one moment.
struct ProcessFacts {
  pid_t pid = 0;
  pid_t parent = 0;
  uid_t uid = 0;
  std::string comm;
  std::string exe;           ///< without " (deleted)"; empty for kernel threads and where access is refused
  bool exe_deleted = false;  ///< replaced or removed since it started
  std::string command_line;
  uint64_t start_ns = 0;  ///< since boot (CLOCK_BOOTTIME), to 10 ms
  bool is_kernel_thread = false;
  std::vector<pid_t> ns_pids;
  std::vector<ThreadFacts> threads;
  std::vector<CgroupPath> cgroups;
};

/// Tells a reused pid: ProcessFacts::start_ns is that of the kernel's task->start_boottime.
bool is_start(uint64_t start_ns, uint64_t boottime_ns);

/// Parts of ProcessFacts that each cost reads of their own; pid, parent, comm, start and kind come with any.
enum ProcessPart : unsigned {
  kPartThreads = 1,
  kPartExe = 2,
  kPartCommandLine = 4,
  kPartStatus = 8,  ///< uid, ns_pids
  kPartCgroups = 16,
  kPartAll = 31,
};

/// std::nullopt: no such process, it has ended, or `pid` is a thread that leads no process.
std::optional<ProcessFacts> read_process(const ProcFs& procfs, pid_t pid, unsigned parts = kPartAll);

/// The name of one thread, by its thread id.
std::optional<std::string> read_thread_comm(const ProcFs& procfs, pid_t tid);

/// The process that a thread belongs to.
std::optional<pid_t> process_of_thread(const ProcFs& procfs, pid_t tid);

/// The form that records carry; `runtime` is left to the runtimes.
ProcessInfo to_process_info(const ProcessFacts& facts);

/// Arguments (each ended by a NUL) as a line that a shell would take, cut to 4 KiB with "..." at its end.
std::string render_command_line(std::string_view cmdline);

/// Nanoseconds since boot as "2026-11-23T09:00:00.120000000Z". Fixed between steps of the wall clock.
std::string boot_time_to_rfc3339(uint64_t since_boot_ns);
std::string realtime_to_rfc3339(uint64_t realtime_ns);

}  // namespace looptrace
