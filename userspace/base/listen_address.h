// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "base/result.h"

namespace looptrace {

/// A numeric address and port to listen on.
struct ListenAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  bool is_v6() const { return storage.ss_family == AF_INET6; }
  /// "127.0.0.1:9464", "[::1]:9464"
  std::string text() const;
};

/// "127.0.0.1:9464", "[::1]:9464", "localhost:9464"; "9464" is a port of 127.0.0.1. Port 0 is any that is
/// free. No name is resolved, and no address is the default but this host's own. Fault::usage with what is
/// right.
Result<ListenAddress> parse_listen_address(const std::string& text);

}  // namespace looptrace
