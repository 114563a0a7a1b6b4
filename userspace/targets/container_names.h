// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "targets/container.h"

namespace looptrace {

/// Adds the names of a container and its pod, from files that the node's software leaves below `root`: what
/// containerd, CRI-O, podman and docker wrote of it (podman: of a user's containers in that user's home),
/// then the kubelet's log links (POD_NAMESPACE_CONTAINER-ID.log), log directories
/// (NAMESPACE_POD_UID/CONTAINER) and pod directories. No network call is made. A name that is not certain is
/// left out: without a file of its own a container is known only if it is its pod's only one.
///
/// The files may be hostile: only regular ones are read, and little of them; a name that is none is none.
void add_container_names(const std::string& root, const ContainerFacts& facts, ContainerInfo& info);

}  // namespace looptrace
