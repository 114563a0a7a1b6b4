// SPDX-License-Identifier: Apache-2.0
#include "targets/container_names.h"

#include <dirent.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/free_with.h"

namespace looptrace {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostEntries = 10'000;  // of a directory
constexpr size_t kMostJson = 1u << 20;
constexpr size_t kLongestName = 253;  // of a pod, as Kubernetes has it

std::vector<std::string> entries_of(const std::string& directory) {
  std::vector<std::string> names;
  std::unique_ptr<DIR, FreeWith<closedir>> dir(::opendir(directory.c_str()));
  if (!dir) return names;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    if (names.size() >= kMostEntries) break;
  }
  return names;
}

// What docker, Kubernetes and podman allow in a name, and no more.
bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kLongestName &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                  c == '_' || c == '.';
         });
}

bool take(std::string& to, const std::string& name) {
  if (!is_name(name)) return false;
  to = name;
  return true;
}

/// The first of these keys that names something.
bool take(std::string& to, const Json& labels, std::initializer_list<const char*> keys) {
  if (!labels.is_object()) return false;
  for (const char* key : keys) {
    const auto found = labels.find(key);
    if (found != labels.end() && found->is_string() && take(to, found->get<std::string>())) return true;
  }
  return false;
}

Json read_json(const std::string& path) {
  const auto text = read_regular_file(path, kMostJson);
  return text ? Json::parse(*text, nullptr, false) : Json();
}

/// Nothing where there is none. `of` outlives it.
const Json& member(const Json& of, const char* key) {
  static const Json kNothing;
  if (!of.is_object()) return kNothing;
  const auto found = of.find(key);
  return found == of.end() ? kNothing : *found;
}

void take_pod(const Json& labels, ContainerInfo& info) {
  take(info.k8s_pod, labels, {"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"});
  take(info.k8s_namespace, labels, {"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"});
  take(info.k8s_container, labels, {"io.kubernetes.cri.container-name", "io.kubernetes.container.name"});
}

// The OCI runtime's configuration of a container that runs, as its engine wrote it.
void read_oci(const std::string& root, ContainerInfo& info) {
  const std::string containerd = root + "/run/containerd/io.containerd.runtime.v2.task/";
  for (const std::string& path :
       {containerd + "k8s.io/" + info.id, containerd + "default/" + info.id,
        root + "/run/containers/storage/overlay-containers/" + info.id + "/userdata"}) {
    const Json config = read_json(path + "/config.json");
    const Json& annotations = member(config, "annotations");
    if (!annotations.is_object()) continue;
    take_pod(annotations, info);
    take(info.name, annotations, {"nerdctl/name"});
    return;
  }
}

void read_docker(const std::string& root, ContainerInfo& info) {
  const Json config = read_json(root + "/var/lib/docker/containers/" + info.id + "/config.v2.json");
  take_pod(member(member(config, "Config"), "Labels"), info);
  const Json& name = member(config, "Name");  // "/shop-web-1"
  if (!name.is_string()) return;
  const std::string text = name.get<std::string>();
  take(info.name, text.substr(text.starts_with('/') ? 1 : 0));
}

std::string home_of(const std::string& root, const std::string& uid) {
  const auto passwd = read_regular_file(root + "/etc/passwd", kMostJson);
  if (!passwd) return "";
  for (const std::string_view line : split(*passwd, '\n')) {
    const auto fields = split(line, ':');
    if (fields.size() >= 7 && fields[2] == uid && fields[5].starts_with('/')) return std::string(fields[5]);
  }
  return "";
}

// containers/storage, of any driver: what podman called the container is the first of its names.
bool read_storage(const std::string& storage, const char* file, ContainerInfo& info) {
  for (const std::string& entry : entries_of(storage)) {
    if (!entry.ends_with("-containers")) continue;
    const Json containers = read_json(storage + "/" + entry + "/" + file);
    if (!containers.is_array()) continue;
    for (const Json& container : containers) {
      if (member(container, "id") != info.id) continue;
      const Json& names = member(container, "names");
      return names.is_array() && !names.empty() && names[0].is_string() &&
             take(info.name, names[0].get<std::string>());
    }
  }
  return false;
}

// A user's containers are below "user@1000.service", and their files where that user keeps them.
void read_podman(const std::string& root, const std::string& unit, ContainerInfo& info) {
  std::string kept = root + "/var/lib/containers/storage", run = root + "/run/containers/storage";
  if (unit.starts_with("user@")) {
    const std::string uid = unit.substr(5, unit.find('.') - 5);
    const std::string home = home_of(root, uid);
    if (home.empty()) return;
    kept = root + home + "/.local/share/containers/storage";
    run = root + "/run/user/" + uid + "/containers";
  }
  // Those of `run --rm` are in the second file, from podman 4.4 on.
  if (!read_storage(kept, "containers.json", info)) read_storage(run, "volatile-containers.json", info);
}

bool read_log_links(const std::string& root, ContainerInfo& info) {
  const std::string ending = "-" + info.id + ".log";
  for (const std::string& entry : entries_of(root + "/var/log/containers")) {
    if (!entry.ends_with(ending)) continue;
    const std::string names = entry.substr(0, entry.size() - ending.size());
    const auto parts = split(names, '_');  // none of the three may hold a "_"
    if (parts.size() != 3 || !std::all_of(parts.begin(), parts.end(), is_name)) continue;
    info.k8s_pod = parts[0];
    info.k8s_namespace = parts[1];
    info.k8s_container = parts[2];
    return true;
  }
  return false;
}

// Where a pod has one container, it is that one.
void take_only(const std::string& directory, ContainerInfo& info) {
  const auto containers = entries_of(directory);
  if (containers.size() == 1 && info.k8s_container.empty()) take(info.k8s_container, containers[0]);
}

void read_log_directories(const std::string& root, const std::string& pod_uid, ContainerInfo& info) {
  const std::string logs = root + "/var/log/pods";
  for (const std::string& entry : entries_of(logs)) {
    const auto parts = split(entry, '_');
    if (parts.size() != 3 || parts[2] != pod_uid || !is_name(parts[0]) || !is_name(parts[1])) continue;
    info.k8s_namespace = parts[0];
    info.k8s_pod = parts[1];
    take_only(logs + "/" + entry, info);
    return;
  }
}

}  // namespace

void add_container_names(const std::string& root, const ContainerFacts& facts, ContainerInfo& info) {
  if (facts.id.empty()) return;
  if (facts.engine != "docker") read_oci(root, info);
  if (facts.engine.empty() || facts.engine == "docker") read_docker(root, info);
  if (facts.engine == "podman") read_podman(root, facts.unit, info);
  if (facts.pod_uid.empty() || (!info.k8s_pod.empty() && !info.k8s_container.empty())) return;
  if (read_log_links(root, info)) return;
  read_log_directories(root, facts.pod_uid, info);
  take_only(root + "/var/lib/kubelet/pods/" + facts.pod_uid + "/containers", info);
}

}  // namespace looptrace
