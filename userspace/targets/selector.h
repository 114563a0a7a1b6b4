// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "targets/cgroup.h"
#include "targets/process.h"

namespace looptrace {

/// The targets of the command line; combined with or. None at all means every loop on the host.
struct Selectors {
  std::vector<pid_t> pids = {}, tids = {};
  std::vector<std::string> comms = {};       ///< globs over process and thread names
  std::vector<std::string> exes = {};        ///< globs over the executable's path, or its base name
  std::vector<std::string> cgroups = {};     ///< "/sys/fs/cgroup/..." or a path below it; with all below
  std::vector<std::string> containers = {};  ///< ids or their beginnings
  bool all = false;

  bool selects_everything() const;
};

/// What of a process is a target.
struct Match {
  bool whole = false;          ///< all its threads, those to come included
  std::vector<pid_t> threads;  ///< else these

  explicit operator bool() const { return whole || !threads.empty(); }
};

/// Answers which processes and threads were asked for. Kernel threads never are: they have no event loop.
class Matcher {
 public:
  Matcher(Selectors selectors, ProcFs procfs, CgroupMounts mounts);

  /// That every pid, tid, cgroup and container exists now (Fault::no_such_target). Names and executables may
  /// match nothing yet. Pins pids and tids to the processes that have them now: a reused pid does not match
  /// later.
  Result<void> validate();

  /// The parts of ProcessFacts that match() looks at.
  unsigned parts() const;
  Match match(const ProcessFacts& facts) const;

  /// Only pids and tids were asked for: nothing that starts later can match, and only these need looking at.
  bool is_fixed() const;
  /// The processes to look at where is_fixed().
  std::vector<pid_t> fixed_pids() const;

  const Selectors& selectors() const { return selectors_; }

 private:
  struct Cgroup {
    std::string controllers;  // of the hierarchy; kAnyHierarchy
    std::string path;
  };
  Cgroup locate(std::string_view asked) const;

  Result<void> validate_pid(pid_t pid);
  Result<void> validate_tid(pid_t tid);
  Result<void> validate_cgroup(const std::string& asked, const Cgroup& cgroup) const;
  Result<void> validate_containers() const;

  bool is_pinned_elsewhere(pid_t id, const ProcessFacts& facts) const;
  bool matches_cgroup(const ProcessFacts& facts) const;
  bool matches_container(const ProcessFacts& facts) const;
  bool matches_exe(const ProcessFacts& facts) const;
  bool matches_comm(const std::string& comm) const;

  Selectors selectors_;
  ProcFs procfs_;
  CgroupMounts mounts_;
  std::vector<Cgroup> cgroups_;
  std::map<pid_t, uint64_t> start_ns_;  // of the process that has this pid or tid
};

}  // namespace looptrace
