// SPDX-License-Identifier: Apache-2.0
#include "base/own_usage.h"

#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "base/files.h"

namespace looptrace {

uint64_t own_cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

uint64_t own_resident_bytes() {
  const auto statm = read_file("/proc/self/statm");
  if (!statm) return 0;
  const auto parts = split(*statm, ' ');
  if (parts.size() < 2) return 0;
  return std::strtoull(std::string(parts[1]).c_str(), nullptr, 10) *
         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace looptrace
