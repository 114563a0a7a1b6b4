// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "targets/procfs.h"

namespace looptrace {

/// One line of /proc/PID/cgroup: where the process is in one hierarchy.
struct CgroupPath {
  std::string controllers;  ///< "cpu,cpuacct", "name=systemd"; empty for v2
  std::string path;         ///< "/system.slice/nginx.service"

  bool is_v2() const { return controllers.empty(); }
  bool has_controller(std::string_view name) const;
};
std::vector<CgroupPath> parse_cgroups(std::string_view text);

/// The one path that tells most: v2 unless it is the root, else the longest of name=systemd, cpu and memory.
std::string choose_cgroup(const std::vector<CgroupPath>& cgroups);

/// `path` is `ancestor` or below it.
bool is_in_cgroup(std::string_view path, std::string_view ancestor);

/// Where one hierarchy is mounted.
struct CgroupMount {
  std::string controllers;  ///< as in CgroupPath
  std::string mount_point;  ///< "/sys/fs/cgroup/cpu,cpuacct"
  std::string root;         ///< the cgroup that is seen at the mount point; "/" outside containers

  /// The directory of a cgroup, if it is visible below this mount.
  std::optional<std::string> directory(std::string_view cgroup) const;
};

/// The cgroup hierarchies of this mount namespace.
class CgroupMounts {
 public:
  CgroupMounts() = default;
  explicit CgroupMounts(std::vector<CgroupMount> mounts) : mounts_(std::move(mounts)) {}
  static CgroupMounts of_this_process(const ProcFs& procfs);
  static CgroupMounts parse(std::string_view mountinfo);

  const std::vector<CgroupMount>& all() const { return mounts_; }
  const CgroupMount* v2() const;
  const CgroupMount* with_controller(std::string_view name) const;  ///< v1

 private:
  std::vector<CgroupMount> mounts_;
};

}  // namespace looptrace
