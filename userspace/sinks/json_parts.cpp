// SPDX-License-Identifier: Apache-2.0
#include "sinks/json_parts.h"

#include <set>

namespace looptrace {

void write_host(JsonWriter& json, const HostInfo& host) {
  if (host.name.empty() && host.id.empty()) return;
  json.begin_object("host");
  json.field("name", host.name);
  json.field("id", host.id);
  json.end_object();
}

void write_process(JsonWriter& json, const ProcessInfo& process, bool with_command_line) {
  json.begin_object("process");
  json.field("pid", process.pid);
  json.field("start_time", process.start_time);
  json.field("comm", process.comm);
  json.field("executable", process.executable);
  if (with_command_line) json.field("command_line", process.command_line);
  json.field("runtime", process.runtime);
  json.field("cgroup", process.cgroup);
  json.end_object();
}

void write_thread(JsonWriter& json, uint32_t id, const std::string& name) {
  json.begin_object("thread");
  json.field("id", id);
  json.field("name", name);
  json.end_object();
}

void write_container(JsonWriter& json, const ContainerInfo& container) {
  if (!container.id.empty()) {
    json.begin_object("container");
    json.field("id", container.id);
    json.field("name", container.name);
    json.end_object();
  }
  if (container.k8s_namespace.empty() && container.k8s_pod.empty() && container.k8s_container.empty()) return;
  json.begin_object("k8s");
  json.field("namespace", container.k8s_namespace);
  json.field("pod", container.k8s_pod);
  json.field("container", container.k8s_container);
  json.end_object();
}

void write_service(JsonWriter& json, const std::string& service) {
  if (service.empty()) return;
  json.begin_object("service");
  json.field("name", service);
  json.end_object();
}

void write_loop(JsonWriter& json, const LoopInfo& loop) {
  json.begin_object("loop");
  json.field("kind", loop.kind);
  json.field("fd", loop.fd);
  json.end_object();
}

void write_peer(JsonWriter& json, const char* key, const std::optional<Peer>& peer) {
  if (!peer) return;
  json.begin_object(key);
  json.field("pid", peer->pid);
  json.field("tid", peer->tid);
  json.field("comm", peer->comm);
  json.end_object();
}

void write_features(JsonWriter& json, std::span<const Capability> features, bool with_texts) {
  json.begin_object("features");
  std::set<std::string> seen;
  for (const Capability& feature : features) {
    // One check a target: the same name may come more than once, a key must not.
    std::string name = feature.name;
    for (int n = 2; !seen.insert(name).second; ++n) name = feature.name + "_" + std::to_string(n);
    json.begin_object(name);
    json.field("available", feature.available);
    json.field("required", feature.required);
    if (with_texts) {
      json.field("detail", feature.detail);
      json.field("mend", feature.mend);
    }
    json.end_object();
  }
  json.end_object();
}

void write_stack_counts(JsonWriter& json, const StackCounts& stacks) {
  if (!stacks.taken) return;
  json.begin_object("stacks");
  json.field("taken", stacks.taken);
  if (!stacks.incomplete.empty()) {
    json.begin_object("incomplete");
    for (const auto& [why, n] : stacks.incomplete) json.field(why, n);
    json.end_object();
  }
  json.end_object();
}

void write_truncated(JsonWriter& json, const Truncated& truncated) {
  json.begin_array("truncated");
  for (const char* name : truncated) json.element(name);
  json.end_array();
}

}  // namespace looptrace
