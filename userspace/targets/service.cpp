// SPDX-License-Identifier: Apache-2.0
#include "targets/service.h"

#include <fnmatch.h>

#include <algorithm>
#include <string_view>

#include "base/files.h"
#include "targets/container.h"

namespace looptrace {
namespace {

struct Field {
  std::string_view name;
  const std::string& (*value)(const ProcessInfo&, const ContainerInfo&);
};

using P = ProcessInfo;
using C = ContainerInfo;
constexpr Field kFields[] = {
    {"comm", [](const P& p, const C&) -> const std::string& { return p.comm; }},
    {"exe", [](const P& p, const C&) -> const std::string& { return p.executable; }},
    {"args", [](const P& p, const C&) -> const std::string& { return p.command_line; }},
    {"cgroup", [](const P& p, const C&) -> const std::string& { return p.cgroup; }},
    {"container", [](const P&, const C& c) -> const std::string& { return c.id; }},
    {"container_name", [](const P&, const C& c) -> const std::string& { return c.name; }},
    {"namespace", [](const P&, const C& c) -> const std::string& { return c.k8s_namespace; }},
    {"pod", [](const P&, const C& c) -> const std::string& { return c.k8s_pod; }},
    {"k8s_container", [](const P&, const C& c) -> const std::string& { return c.k8s_container; }},
};

const Field* find_field(std::string_view name) {
  const auto found = std::find_if(std::begin(kFields), std::end(kFields),
                                  [&](const Field& field) { return field.name == name; });
  return found == std::end(kFields) ? nullptr : found;
}

// The alphabet of names that Kubernetes makes up: without vowels and what looks like them.
bool is_made_up(std::string_view text) {
  return !text.empty() && text.find_first_not_of("bcdfghjklmnpqrstvwxz2456789") == text.npos;
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

// "nginx" of "nginx.service", "getty" of "getty@tty1.service". Nothing of what users' sessions run in.
std::string name_of_unit(const std::string& unit) {
  if (!unit.ends_with(".service") || unit.starts_with("user@")) return "";
  std::string name = unit.substr(0, unit.size() - std::string_view(".service").size());
  return name.substr(0, name.find('@'));
}

}  // namespace

Result<ServiceRule> parse_service_rule(const std::string& text) {
  ServiceRule rule;
  for (const std::string_view part : split(text, ' ')) {
    if (part.empty()) continue;
    if (rule.name.empty()) {
      if (part.find('=') != part.npos) break;
      rule.name = part;
      continue;
    }
    const size_t equals = part.find('=');
    const Field* field = equals == part.npos ? nullptr : find_field(part.substr(0, equals));
    if (!field || equals + 1 == part.size()) {
      return Error{
          "'" + std::string(part) +
              "' is no condition; write FIELD=GLOB, where FIELD is comm, exe, args, cgroup, container, "
              "container_name, namespace, pod or k8s_container",
          0, Fault::usage};
    }
    rule.conditions.emplace_back(part.substr(0, equals), part.substr(equals + 1));
  }
  if (rule.name.empty() || rule.conditions.empty()) {
    return Error{
        "'" + text + "' is no service rule; write a name and conditions, as in 'checkout exe=/srv/shop/*'", 0,
        Fault::usage};
  }
  return rule;
}

std::string service_by_rule(const std::vector<ServiceRule>& rules, const ProcessInfo& process,
                            const ContainerInfo& container) {
  for (const ServiceRule& rule : rules) {
    const bool holds =
        std::all_of(rule.conditions.begin(), rule.conditions.end(), [&](const auto& condition) {
          const Field* field = find_field(condition.first);
          return field &&
                 ::fnmatch(condition.second.c_str(), field->value(process, container).c_str(), 0) == 0;
        });
    if (holds) return rule.name;
  }
  return "";
}

std::string service_without_rule(const ProcessInfo& process, const ContainerInfo& container) {
  if (!container.k8s_pod.empty()) return workload_of_pod(container.k8s_pod);
  // A unit of the host's that holds containers, as docker.service does, does not name what runs in them.
  if (container.id.empty()) {
    if (std::string unit = name_of_unit(container_from_cgroup(process.cgroup).unit); !unit.empty())
      return unit;
  }
  return process.comm;
}

// Deployment: NAME-TEMPLATE_HASH-XXXXX; DaemonSet and Job: NAME-XXXXX; StatefulSet: NAME-N.
std::string workload_of_pod(const std::string& pod) {
  const size_t last = pod.rfind('-');
  if (last == pod.npos || last == 0) return pod;
  const std::string_view ending = std::string_view(pod).substr(last + 1);
  if (is_number(ending) && ending.size() < 5) return pod.substr(0, last);
  if (ending.size() != 5 || !is_made_up(ending)) return pod;
  std::string name = pod.substr(0, last);
  const size_t before = name.rfind('-');
  if (before != name.npos && before > 0) {
    const std::string_view hash = std::string_view(name).substr(before + 1);
    if (hash.size() >= 6 && hash.size() <= 10 && is_made_up(hash)) return name.substr(0, before);
  }
  return name;
}

}  // namespace looptrace
