// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "record/stall.h"

namespace looptrace {

/// "checkout exe=/srv/shop/* namespace=shop": what all of the conditions hold for is the service `name`.
struct ServiceRule {
  std::string name;
  std::vector<std::pair<std::string, std::string>> conditions;  ///< field, glob
};

/// Fields: comm, exe, args, cgroup, container (id), container_name, namespace, pod, k8s_container.
/// Fault::usage with what is wrong.
Result<ServiceRule> parse_service_rule(const std::string& text);

/// The service that a process belongs to by the first rule that holds; empty if none does.
std::string service_by_rule(const std::vector<ServiceRule>& rules, const ProcessInfo& process,
                            const ContainerInfo& container);

/// Else: the workload of its pod ("web" of "web-5d9c7b6f4-x2x7k"), else its systemd unit without suffix and
/// instance, else its name.
std::string service_without_rule(const ProcessInfo& process, const ContainerInfo& container);

/// The Deployment, DaemonSet or StatefulSet of a pod, by how Kubernetes forms a pod's name.
std::string workload_of_pod(const std::string& pod);

}  // namespace looptrace
