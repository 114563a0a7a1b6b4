// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "record/stall.h"
#include "targets/cgroup.h"

namespace looptrace {

/// What a cgroup path tells about who runs a process. Empty where it does not tell.
struct ContainerFacts {
  std::string id;       ///< 64 hex digits
  std::string engine;   ///< docker, containerd, cri-o, podman
  std::string pod_uid;  ///< with dashes; static pods have 32 hex digits
  std::string unit;     ///< systemd: "nginx.service"
};

/// The innermost container, pod and unit of one path.
ContainerFacts container_from_cgroup(std::string_view path);

/// The same over all hierarchies of a process.
ContainerFacts container_of(const std::vector<CgroupPath>& cgroups);

/// With its names, as far as the first of these roots that has any tells: what runs in a container with the
/// host's process ids sees the host's files below the root of its first process. See container_names.h.
ContainerInfo to_container_info(const ContainerFacts& facts,
                                const std::vector<std::string>& roots = {"/proc/1/root", ""});

}  // namespace looptrace
