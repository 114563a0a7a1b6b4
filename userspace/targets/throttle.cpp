// SPDX-License-Identifier: Apache-2.0
#include "targets/throttle.h"

#include <charconv>

#include "base/files.h"

namespace looptrace {

std::optional<Throttle> parse_cpu_stat(std::string_view text) {
  Throttle throttle;
  bool found = false;
  for (const std::string_view line : split(text, '\n')) {
    const size_t blank = line.find(' ');
    if (blank == line.npos) continue;
    const std::string_view key = line.substr(0, blank), value = line.substr(blank + 1);
    uint64_t n = 0;
    if (std::from_chars(value.data(), value.data() + value.size(), n).ec != std::errc{}) continue;
    if (key == "nr_throttled") throttle.count = n, found = true;
    if (key == "throttled_time") throttle.ns = n;
    if (key == "throttled_usec") throttle.ns = n * 1000;
  }
  if (!found) return std::nullopt;
  return throttle;
}

ThrottleSource ThrottleSource::of_thread(const ProcFs& procfs, const CgroupMounts& mounts, pid_t tid) {
  ThrottleSource source;
  const auto text = procfs.read(tid, "cgroup");
  if (!text) return source;

  const CgroupMount* v1 = mounts.with_controller("cpu");
  const CgroupMount* mount = v1 ? v1 : mounts.v2();
  if (!mount) return source;
  for (const CgroupPath& cgroup : parse_cgroups(*text)) {
    if (v1 ? !cgroup.has_controller("cpu") : !cgroup.is_v2()) continue;
    auto directory = mount->directory(cgroup.path);
    if (!directory) continue;
    while (directory->size() > mount->mount_point.size()) {
      source.files_.push_back(*directory + "/cpu.stat");
      directory->resize(directory->rfind('/'));
    }
    source.files_.push_back(mount->mount_point + "/cpu.stat");  // a container's own, seen from inside
  }
  return source;
}

std::optional<Throttle> ThrottleSource::read() const {
  std::optional<Throttle> sum;
  for (const std::string& file : files_) {
    const auto text = read_file(file, 1 << 16);
    const auto throttle = text ? parse_cpu_stat(*text) : std::nullopt;
    if (!throttle) continue;
    if (!sum) sum.emplace();
    *sum += *throttle;
  }
  return sum;
}

}  // namespace looptrace
