// SPDX-License-Identifier: Apache-2.0
#include "targets/selector.h"

#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/files.h"
#include "targets/container.h"

namespace looptrace {
namespace {

constexpr std::string_view kAnyHierarchy = "*";
constexpr std::string_view kCgroupRoot = "/sys/fs/cgroup";
constexpr size_t kCommLength = 15;  // TASK_COMM_LEN without its NUL

bool is_glob(const std::string& pattern) { return pattern.find_first_of("*?[\\") != pattern.npos; }

bool glob_matches(const std::string& pattern, const std::string& text) {
  return ::fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
}

// Kubernetes writes ids as "containerd://5f3a...".
std::string without_scheme(const std::string& id) {
  const size_t scheme = id.find("://");
  return scheme == id.npos ? id : id.substr(scheme + 3);
}

bool is_directory(const std::string& path) {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

Error no_such_target(std::string what) { return {std::move(what), 0, Fault::no_such_target}; }

}  // namespace

bool Selectors::selects_everything() const {
  return all || (pids.empty() && tids.empty() && comms.empty() && exes.empty() && cgroups.empty() &&
                 containers.empty());
}

Matcher::Matcher(Selectors selectors, ProcFs procfs, CgroupMounts mounts)
    : selectors_(std::move(selectors)), procfs_(std::move(procfs)), mounts_(std::move(mounts)) {
  for (std::string& comm : selectors_.comms) {
    if (!is_glob(comm) && comm.size() > kCommLength) comm.resize(kCommLength);  // as the kernel cuts names
  }
  for (std::string& id : selectors_.containers) id = without_scheme(id);
  for (const std::string& asked : selectors_.cgroups) cgroups_.push_back(locate(asked));
}

Matcher::Cgroup Matcher::locate(std::string_view asked) const {
  while (asked.size() > 1 && asked.ends_with('/')) asked.remove_suffix(1);
  const CgroupMount* best = nullptr;
  for (const CgroupMount& mount : mounts_.all()) {
    if (is_in_cgroup(asked, mount.mount_point) &&
        (!best || mount.mount_point.size() > best->mount_point.size())) {
      best = &mount;
    }
  }
  if (best) {
    std::string path =
        (best->root == "/" ? "" : best->root) + std::string(asked.substr(best->mount_point.size()));
    return {best->controllers, path.empty() ? "/" : path};
  }
  if (is_in_cgroup(asked, kCgroupRoot)) asked.remove_prefix(kCgroupRoot.size());
  std::string path = asked.starts_with('/') ? "" : "/";
  path += asked;
  return {std::string(kAnyHierarchy), std::move(path)};
}

// ---------------------------------------------------------------- matching

unsigned Matcher::parts() const {
  if (selectors_.selects_everything()) return 0;
  unsigned parts = 0;
  if (!selectors_.comms.empty() || !selectors_.tids.empty()) parts |= kPartThreads;
  if (!selectors_.exes.empty()) parts |= kPartExe;
  if (!selectors_.cgroups.empty() || !selectors_.containers.empty()) parts |= kPartCgroups;
  return parts;
}

Match Matcher::match(const ProcessFacts& facts) const {
  Match match;
  if (facts.is_kernel_thread) return match;
  const auto& pids = selectors_.pids;
  const bool by_pid = std::find(pids.begin(), pids.end(), facts.pid) != pids.end();
  match.whole = selectors_.selects_everything() || (by_pid && !is_pinned_elsewhere(facts.pid, facts)) ||
                matches_comm(facts.comm) || matches_exe(facts) || matches_cgroup(facts) ||
                matches_container(facts);
  if (match.whole) return match;

  for (const ThreadFacts& thread : facts.threads) {
    const auto& tids = selectors_.tids;
    const bool by_tid = std::find(tids.begin(), tids.end(), thread.tid) != tids.end();
    if ((by_tid && !is_pinned_elsewhere(thread.tid, facts)) || matches_comm(thread.comm)) {
      match.threads.push_back(thread.tid);
    }
  }
  return match;
}

bool Matcher::is_pinned_elsewhere(pid_t id, const ProcessFacts& facts) const {
  const auto pinned = start_ns_.find(id);
  return pinned != start_ns_.end() && pinned->second != facts.start_ns;
}

bool Matcher::matches_comm(const std::string& comm) const {
  return std::any_of(selectors_.comms.begin(), selectors_.comms.end(),
                     [&](const std::string& pattern) { return glob_matches(pattern, comm); });
}

bool Matcher::matches_exe(const ProcessFacts& facts) const {
  if (facts.exe.empty()) return false;
  const std::string base = facts.exe.substr(facts.exe.rfind('/') + 1);
  return std::any_of(selectors_.exes.begin(), selectors_.exes.end(), [&](const std::string& pattern) {
    return glob_matches(pattern, facts.exe) || glob_matches(pattern, base);
  });
}

bool Matcher::matches_cgroup(const ProcessFacts& facts) const {
  for (const Cgroup& wanted : cgroups_) {
    for (const CgroupPath& cgroup : facts.cgroups) {
      const bool hierarchy = wanted.controllers == kAnyHierarchy || wanted.controllers == cgroup.controllers;
      if (hierarchy && is_in_cgroup(cgroup.path, wanted.path)) return true;
    }
  }
  return false;
}

bool Matcher::matches_container(const ProcessFacts& facts) const {
  if (selectors_.containers.empty()) return false;
  const std::string id = container_of(facts.cgroups).id;
  return !id.empty() && std::any_of(selectors_.containers.begin(), selectors_.containers.end(),
                                    [&](const std::string& prefix) { return id.starts_with(prefix); });
}

bool Matcher::is_fixed() const {
  return !selectors_.selects_everything() && selectors_.comms.empty() && selectors_.exes.empty() &&
         cgroups_.empty() && selectors_.containers.empty();
}

std::vector<pid_t> Matcher::fixed_pids() const {
  std::set<pid_t> pids(selectors_.pids.begin(), selectors_.pids.end());
  for (const pid_t tid : selectors_.tids) {
    if (const auto pid = process_of_thread(procfs_, tid)) pids.insert(*pid);
  }
  return {pids.begin(), pids.end()};
}

// ---------------------------------------------------------------- validation

Result<void> Matcher::validate() {
  for (const pid_t pid : selectors_.pids) {
    if (auto valid = validate_pid(pid); !valid) return valid;
  }
  for (const pid_t tid : selectors_.tids) {
    if (auto valid = validate_tid(tid); !valid) return valid;
  }
  for (size_t i = 0; i < cgroups_.size(); ++i) {
    if (auto valid = validate_cgroup(selectors_.cgroups[i], cgroups_[i]); !valid) return valid;
  }
  return selectors_.containers.empty() ? Result<void>() : validate_containers();
}

Result<void> Matcher::validate_pid(pid_t pid) {
  const std::string asked = "--pid " + std::to_string(pid) + ": ";
  const auto leader = process_of_thread(procfs_, pid);
  if (leader && *leader != pid) {
    return no_such_target(asked + "this is a thread of process " + std::to_string(*leader) +
                          "; ask for --tid " + std::to_string(pid) +
                          ", or for the whole process with --pid " + std::to_string(*leader));
  }
  const auto facts = read_process(procfs_, pid, 0);
  if (!facts) {
    return no_such_target(asked +
                          "no process has this pid: it has ended, or the pid is one of another pid namespace "
                          "(a container's); `looptrace list` shows the loops with the pids of this one");
  }
  if (facts->is_kernel_thread) {
    return no_such_target(asked + "this is a kernel thread (" + facts->comm + "), which has no event loop");
  }
  start_ns_[pid] = facts->start_ns;
  return {};
}

Result<void> Matcher::validate_tid(pid_t tid) {
  const std::string asked = "--tid " + std::to_string(tid) + ": ";
  const auto pid = process_of_thread(procfs_, tid);
  const auto facts = pid ? read_process(procfs_, *pid, 0) : std::nullopt;
  if (!facts) {
    return no_such_target(asked +
                          "no thread has this id: it has ended, or the id is one of another pid namespace; "
                          "`ps -eL` shows the threads of this one in its LWP column");
  }
  if (facts->is_kernel_thread) {
    return no_such_target(asked + "this is a kernel thread (" + facts->comm + "), which has no event loop");
  }
  start_ns_[tid] = facts->start_ns;
  return {};
}

Result<void> Matcher::validate_cgroup(const std::string& asked, const Cgroup& cgroup) const {
  for (const CgroupMount& mount : mounts_.all()) {
    if (cgroup.controllers != kAnyHierarchy && cgroup.controllers != mount.controllers) continue;
    if (const auto directory = mount.directory(cgroup.path); directory && is_directory(*directory)) return {};
  }
  if (mounts_.all().empty()) {
    return no_such_target("--cgroup " + asked + ": no cgroup hierarchy is mounted here");
  }
  return no_such_target("--cgroup " + asked +
                        ": no such cgroup in any mounted hierarchy; the cgroups of a process "
                        "are in /proc/PID/cgroup, `systemd-cgls` shows all");
}

Result<void> Matcher::validate_containers() const {
  std::set<std::string> running;
  for (const pid_t pid : procfs_.pids()) {
    const auto text = procfs_.read(pid, "cgroup");
    if (!text) continue;
    if (auto id = container_of(parse_cgroups(*text)).id; !id.empty()) running.insert(std::move(id));
  }
  for (const std::string& prefix : selectors_.containers) {
    const std::string asked = "--container " + prefix + ": ";
    const auto first = running.lower_bound(prefix);
    if (prefix.empty() || first == running.end() || !first->starts_with(prefix)) {
      return no_such_target(
          asked +
          "no process runs in a container whose id begins so; containers are known by their "
          "ids, not by their names: `docker inspect -f '{{.Id}}' NAME`, `crictl ps --no-trunc`");
    }
    if (const auto second = std::next(first); second != running.end() && second->starts_with(prefix)) {
      return Error{asked + "several containers have ids that begin so: " + *first + ", " + *second, 0,
                   Fault::usage};
    }
  }
  return {};
}

}  // namespace looptrace
