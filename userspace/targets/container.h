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

/// Adds the names that Kubernetes gives, where this host is a node, from what the kubelet leaves on it: its
/// log links are called POD_NAMESPACE_CONTAINER-ID.log, its log directories NAMESPACE_POD_UID/CONTAINER.
/// Without a link the container is known only if it is its pod's only one.
ContainerInfo to_container_info(const ContainerFacts& facts,
                                const std::string& log_links = "/var/log/containers",
                                const std::string& log_directories = "/var/log/pods");

}  // namespace looptrace
