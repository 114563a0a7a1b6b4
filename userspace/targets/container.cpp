// SPDX-License-Identifier: Apache-2.0
#include "targets/container.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "base/files.h"
#include "targets/container_names.h"

namespace looptrace {
namespace {

struct Engine {
  std::string_view prefix;  // of the container's scope
  std::string_view name;
};
constexpr Engine kEngines[] = {
    {"docker-", "docker"}, {"cri-containerd-", "containerd"}, {"nerdctl-", "containerd"}, {"crio-", "cri-o"},
    {"libpod-", "podman"},
};

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_container_id(std::string_view text) { return text.size() == 64 && is_hex(text); }

std::string_view without_suffix(std::string_view text, std::string_view suffix) {
  if (text.ends_with(suffix)) text.remove_suffix(suffix.size());
  return text;
}

// The engine where an id stands alone, by the cgroup that it stands in.
std::string_view engine_by_parent(std::string_view parent) {
  if (parent == "docker") return "docker";
  if (parent == "k8s.io" || parent == "default") return "containerd";  // containerd's namespaces
  if (parent == "libpod_parent") return "podman";
  return "";
}

bool read_container(std::string_view component, std::string_view parent, ContainerFacts& facts) {
  const std::string_view name = without_suffix(component, ".scope");
  if (is_container_id(name)) {
    facts.id = name;
    facts.engine = engine_by_parent(parent);
    return true;
  }
  for (const Engine& engine : kEngines) {
    if (name.starts_with(engine.prefix) && is_container_id(name.substr(engine.prefix.size()))) {
      facts.id = name.substr(engine.prefix.size());
      facts.engine = engine.name;
      return true;
    }
  }
  // SLICE:ENGINE:ID, from a runtime with the cgroupfs driver under a kubelet with the systemd driver.
  const auto parts = split(name, ':');
  if (parts.size() == 3 && is_container_id(parts[2])) {
    facts.id = parts[2];
    facts.engine = parts[1] == "cri-containerd" ? "containerd"
                   : parts[1] == "crio"         ? "cri-o"
                                                : std::string(parts[1]);
    return true;
  }
  return false;
}

// "kubepods-burstable-pod0f5c_..._9a.slice", or "pod0f5c-...-9a" below "kubepods".
std::string read_pod_uid(std::string_view component) {
  const size_t colon = component.find(':');
  std::string_view name = without_suffix(component.substr(0, colon), ".slice");
  const size_t pod = name.starts_with("pod") ? 0 : name.rfind("-pod");
  if (pod == name.npos || (pod > 0 && name.find("kubepods") == name.npos)) return "";
  std::string uid(name.substr(name.find("pod", pod) + 3));
  std::replace(uid.begin(), uid.end(), '_', '-');

  std::string digits;
  std::copy_if(uid.begin(), uid.end(), std::back_inserter(digits), [](char c) { return c != '-'; });
  return digits.size() == 32 && is_hex(digits) ? uid : "";
}

}  // namespace

ContainerFacts container_from_cgroup(std::string_view path) {
  ContainerFacts facts;
  std::string_view parent;
  for (const std::string_view component : split(path, '/')) {
    if (component.empty()) continue;
    if (auto uid = read_pod_uid(component); !uid.empty()) facts.pod_uid = std::move(uid);
    const bool is_container = read_container(component, parent, facts);
    if (!is_container && (component.ends_with(".service") || component.ends_with(".scope")))
      facts.unit = component;
    parent = component;
  }
  return facts;
}

ContainerFacts container_of(const std::vector<CgroupPath>& cgroups) {
  ContainerFacts facts;
  for (const CgroupPath& cgroup : cgroups) {
    ContainerFacts found = container_from_cgroup(cgroup.path);
    if (facts.id.empty()) facts.id = std::move(found.id), facts.engine = std::move(found.engine);
    if (facts.pod_uid.empty()) facts.pod_uid = std::move(found.pod_uid);
    if (facts.unit.empty()) facts.unit = std::move(found.unit);
  }
  return facts;
}

ContainerInfo to_container_info(const ContainerFacts& facts, const std::vector<std::string>& roots) {
  ContainerInfo info;
  info.id = facts.id;
  for (const std::string& root : roots) {
    add_container_names(root, facts, info);
    if (!info.name.empty() || !info.k8s_pod.empty() || !info.k8s_container.empty()) break;
  }
  return info;
}

}  // namespace looptrace
