// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

namespace looptrace {

bool TargetOptions::empty() const {
  return pids.empty() && tids.empty() && comms.empty() && exes.empty() && cgroups.empty() &&
         containers.empty();
}

std::vector<std::string> TargetOptions::describe() const {
  std::vector<std::string> texts;
  for (const uint32_t pid : pids) texts.push_back("pid=" + std::to_string(pid));
  for (const uint32_t tid : tids) texts.push_back("tid=" + std::to_string(tid));
  for (const std::string& comm : comms) texts.push_back("comm=" + comm);
  for (const std::string& exe : exes) texts.push_back("exe=" + exe);
  for (const std::string& cgroup : cgroups) texts.push_back("cgroup=" + cgroup);
  for (const std::string& container : containers) texts.push_back("container=" + container);
  return texts;
}

const char* hook_mode_name(HookMode mode) {
  switch (mode) {
    case HookMode::automatic:
      return "auto";
    case HookMode::always:
      return "always";
    case HookMode::never:
      return "never";
  }
  return "auto";
}

}  // namespace looptrace
