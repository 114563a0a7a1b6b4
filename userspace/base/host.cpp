// SPDX-License-Identifier: Apache-2.0
#include "base/host.h"

#include <sys/utsname.h>

#include <cstdlib>

#include "base/files.h"
#include "base/sha256.h"

namespace looptrace {

HostInfo read_host_info(const std::string& machine_id_path) {
  HostInfo host;
  utsname names{};
  if (::uname(&names) == 0) host.name = names.nodename;
  if (const auto text = read_file(machine_id_path)) {
    const std::string_view machine_id = trim(*text);
    // machine-id(5): "should not be exposed"; an application hashes it with a key of its own.
    if (!machine_id.empty()) host.id = sha256_hex("looptrace host " + std::string(machine_id)).substr(0, 32);
  }
  return host;
}

uint32_t count_host_threads(const std::string& loadavg_path) {
  const auto text = read_file(loadavg_path);
  const size_t slash = text ? text->find('/') : std::string::npos;
  return slash == std::string::npos
             ? 0
             : static_cast<uint32_t>(std::strtoul(text->c_str() + slash + 1, nullptr, 10));
}

}  // namespace looptrace
