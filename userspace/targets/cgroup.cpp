// SPDX-License-Identifier: Apache-2.0
#include "targets/cgroup.h"

#include <algorithm>

#include "base/files.h"

namespace looptrace {
namespace {

bool lists(std::string_view controllers, std::string_view name) {
  const auto parts = split(controllers, ',');
  return std::find(parts.begin(), parts.end(), name) != parts.end();
}

// mountinfo writes blanks and backslashes as three octal digits.
std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// The controllers among a v1 mount's options; the others say how it is mounted.
std::string controllers_of(std::string_view options) {
  static constexpr std::string_view kFlags[] = {"rw", "ro", "xattr", "noprefix", "clone_children", "none"};
  std::string out;
  for (const std::string_view option : split(options, ',')) {
    if (std::find(std::begin(kFlags), std::end(kFlags), option) != std::end(kFlags)) continue;
    if (option.find('=') != option.npos && !option.starts_with("name=")) continue;
    if (!out.empty()) out += ',';
    out += option;
  }
  return out;
}

}  // namespace

bool CgroupPath::has_controller(std::string_view name) const { return lists(controllers, name); }

std::vector<CgroupPath> parse_cgroups(std::string_view text) {
  std::vector<CgroupPath> found;
  for (const std::string_view line : split(text, '\n')) {  // ID:CONTROLLERS:PATH
    const size_t first = line.find(':');
    if (first == line.npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == line.npos) continue;
    found.push_back(
        {std::string(line.substr(first + 1, second - first - 1)), std::string(line.substr(second + 1))});
  }
  return found;
}

std::string choose_cgroup(const std::vector<CgroupPath>& cgroups) {
  std::string longest;
  for (const CgroupPath& cgroup : cgroups) {
    if (cgroup.is_v2() && cgroup.path.size() > 1) return cgroup.path;
    const bool telling = cgroup.is_v2() || cgroup.has_controller("name=systemd") ||
                         cgroup.has_controller("cpu") || cgroup.has_controller("memory");
    if (telling && cgroup.path.size() > longest.size()) longest = cgroup.path;
  }
  return longest;
}

bool is_in_cgroup(std::string_view path, std::string_view ancestor) {
  while (ancestor.ends_with('/')) ancestor.remove_suffix(1);
  return path.starts_with(ancestor) && (path.size() == ancestor.size() || path[ancestor.size()] == '/');
}

std::optional<std::string> CgroupMount::directory(std::string_view cgroup) const {
  if (!is_in_cgroup(cgroup, root)) return std::nullopt;
  if (root != "/") cgroup.remove_prefix(root.size());
  if (cgroup == "/") cgroup = {};
  return mount_point + std::string(cgroup);
}

CgroupMounts CgroupMounts::of_this_process(const ProcFs& procfs) {
  const auto text = read_file(procfs.root() + "/self/mountinfo");
  return text ? parse(*text) : CgroupMounts();
}

CgroupMounts CgroupMounts::parse(std::string_view mountinfo) {
  std::vector<CgroupMount> mounts;
  for (const std::string_view line : split(mountinfo, '\n')) {
    const size_t separator = line.find(" - ");
    if (separator == line.npos) continue;
    const auto before = split(line.substr(0, separator), ' ');  // ID PARENT DEV ROOT MOUNT_POINT OPTIONS ...
    const auto after = split(line.substr(separator + 3), ' ');  // TYPE SOURCE OPTIONS
    if (before.size() < 5 || after.size() < 3) continue;
    if (after[0] != "cgroup" && after[0] != "cgroup2") continue;
    mounts.push_back(
        {after[0] == "cgroup" ? controllers_of(after[2]) : "", unescape(before[4]), unescape(before[3])});
  }
  return CgroupMounts(std::move(mounts));
}

const CgroupMount* CgroupMounts::v2() const {
  for (const CgroupMount& mount : mounts_) {
    if (mount.controllers.empty()) return &mount;
  }
  return nullptr;
}

const CgroupMount* CgroupMounts::with_controller(std::string_view name) const {
  for (const CgroupMount& mount : mounts_) {
    if (lists(mount.controllers, name)) return &mount;
  }
  return nullptr;
}

}  // namespace looptrace
