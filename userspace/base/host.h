// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace looptrace {

/// The machine that records come from. Absent text is empty.
struct HostInfo {
  std::string name;  ///< the host's own name, not resolved
  std::string id;    ///< 32 hex digits: stands for the machine id, which must not leave the host as it is
};

HostInfo read_host_info(const std::string& machine_id_path = "/etc/machine-id");

/// How many threads there are now; 0 where that is not to be read. "0.20 0.18 0.12 1/80 11206": 80.
uint32_t count_host_threads(const std::string& loadavg_path = "/proc/loadavg");

}  // namespace looptrace
