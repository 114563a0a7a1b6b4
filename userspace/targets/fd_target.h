// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "record/stall.h"
#include "targets/procfs.h"

namespace looptrace {

/// What descriptor `fd` of a process is now: kind, and path, addresses or pid where it has them.
/// For waits that still last; a closed record has what the kernel side saw instead, since fds are reused.
/// std::nullopt: no such process or descriptor any more. Never blocks on the file behind the descriptor.
std::optional<WaitTarget> resolve_fd(const ProcFs& procfs, pid_t pid, int fd);

/// "127.0.0.1:80", "[::1]:80" from an address in network byte order (4 or 16 bytes used) and a port in host
/// order; v4-mapped v6 is shown as v4. Empty for other families.
std::string render_endpoint(int family, const uint8_t* address, uint16_t port);

/// The line of /proc/net/{tcp,tcp6,udp,udp6} that has this inode.
struct InetSocket {
  std::string local, peer;  ///< peer is empty where there is none
};
std::optional<InetSocket> parse_inet_line(std::string_view line, uint64_t inode);

/// The line of /proc/net/unix that has this inode.
struct UnixSocket {
  std::string path;        ///< that it is bound to: "/run/x.sock", "@abstract", "" for an unnamed one
  bool connected = false;  ///< it has a peer; one that listens has none
};
std::optional<UnixSocket> parse_unix_line(std::string_view line, uint64_t inode);

}  // namespace looptrace
