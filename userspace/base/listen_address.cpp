// SPDX-License-Identifier: Apache-2.0
#include "base/listen_address.h"

#include <arpa/inet.h>

#include <array>
#include <charconv>
#include <cstring>

namespace looptrace {
namespace {

constexpr unsigned kMostPort = 65535;

Error wrong(const std::string& text, const char* why) {
  return Error{
      '\'' + text + "' " + why + ", as in 127.0.0.1:9464 or [::1]:9464 (0.0.0.0:9464 is every interface)", 0,
      Fault::usage};
}

ListenAddress make_v4(const in_addr& host, uint16_t port) {
  ListenAddress address;
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr = host;
  in.sin_port = htons(port);
  std::memcpy(&address.storage, &in, sizeof in);
  address.length = sizeof in;
  return address;
}

ListenAddress make_v6(const in6_addr& host, uint16_t port) {
  ListenAddress address;
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_addr = host;
  in.sin6_port = htons(port);
  std::memcpy(&address.storage, &in, sizeof in);
  address.length = sizeof in;
  return address;
}

}  // namespace

std::string ListenAddress::text() const {
  std::array<char, INET6_ADDRSTRLEN> host{};
  if (is_v6()) {
    sockaddr_in6 in{};
    std::memcpy(&in, &storage, sizeof in);
    inet_ntop(AF_INET6, &in.sin6_addr, host.data(), host.size());
    return std::string("[") + host.data() + "]:" + std::to_string(ntohs(in.sin6_port));
  }
  sockaddr_in in{};
  std::memcpy(&in, &storage, sizeof in);
  inet_ntop(AF_INET, &in.sin_addr, host.data(), host.size());
  return std::string(host.data()) + ':' + std::to_string(ntohs(in.sin_port));
}

Result<ListenAddress> parse_listen_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  std::string host = colon == std::string::npos ? "127.0.0.1" : text.substr(0, colon);
  const std::string port_text = colon == std::string::npos ? text : text.substr(colon + 1);
  unsigned port = 0;
  const char* end = port_text.data() + port_text.size();
  const auto number = std::from_chars(port_text.data(), end, port);
  if (number.ec != std::errc() || number.ptr != end || port > kMostPort)
    return wrong(text, "has no port from 0 to 65535: an address and a port belong here");
  if (host.empty()) return wrong(text, "names a port and no address: give both");
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    in6_addr v6{};
    if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6) == 1)
      return make_v6(v6, static_cast<uint16_t>(port));
  }
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return make_v4(v4, static_cast<uint16_t>(port));
  return wrong(text, "does not begin with a numeric address: an address and a port belong here");
}

}  // namespace looptrace
