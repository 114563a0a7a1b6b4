// SPDX-License-Identifier: Apache-2.0
#include "targets/fd_target.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <vector>

#include "base/fd.h"
#include "base/files.h"

namespace looptrace {
namespace {

// A socket table is read no further than this: 100,000 connections are 15 MB and some 50 ms.
constexpr size_t kTableLimit = 16u << 20;

template <typename T>
std::optional<T> number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> found;
  for (const std::string_view part : split(line, ' ')) {
    if (!part.empty()) found.push_back(part);
  }
  return found;
}

// "socket:[4711]" with the prefix "socket:".
std::optional<uint64_t> bracketed(std::string_view link, std::string_view prefix) {
  if (!link.starts_with(prefix) || !link.ends_with(']')) return std::nullopt;
  link.remove_prefix(prefix.size());
  if (!link.starts_with('[')) return std::nullopt;
  return number<uint64_t>(link.substr(1, link.size() - 2));
}

// "0100007F:1F90": the address as 32-bit words in host order, the port in hex.
struct Endpoint {
  int family = AF_INET;
  std::array<uint8_t, 16> address{};
  uint16_t port = 0;

  bool is_any() const {
    return port == 0 && std::all_of(address.begin(), address.end(), [](uint8_t byte) { return byte == 0; });
  }
  std::string render() const { return render_endpoint(family, address.data(), port); }
};

std::optional<Endpoint> parse_endpoint(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon != 8 && colon != 32) return std::nullopt;
  Endpoint endpoint;
  endpoint.family = colon == 8 ? AF_INET : AF_INET6;
  for (size_t i = 0; i < colon / 8; ++i) {
    const auto word = number<uint32_t>(text.substr(i * 8, 8), 16);
    if (!word) return std::nullopt;
    std::memcpy(endpoint.address.data() + i * 4, &*word, 4);
  }
  const auto port = number<uint16_t>(text.substr(colon + 1), 16);
  if (!port) return std::nullopt;
  endpoint.port = *port;
  return endpoint;
}

// Calls `parse` with each line of a table until it finds something.
template <typename Parse>
auto find_in_table(const std::string& path, Parse parse) -> decltype(parse(std::string_view())) {
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return std::nullopt;
  std::string pending;
  std::vector<char> chunk(65536);
  for (size_t total = 0; total < kTableLimit;) {
    const ssize_t n = ::read(file.get(), chunk.data(), chunk.size());
    if (n <= 0) break;
    total += static_cast<size_t>(n);
    pending.append(chunk.data(), static_cast<size_t>(n));
    size_t from = 0;
    for (size_t end; (end = pending.find('\n', from)) != pending.npos; from = end + 1) {
      if (auto found = parse(std::string_view(pending).substr(from, end - from))) return found;
    }
    pending.erase(0, from);
  }
  return std::nullopt;
}

// The protocol's name as the kernel has it ("TCP", "UDPv6", "UNIX-STREAM", "NETLINK"); empty if it will not
// say.
std::string socket_protocol(const std::string& fd_path) {
  std::array<char, 64> name{};
  const ssize_t n = ::getxattr(fd_path.c_str(), "system.sockprotoname", name.data(), name.size() - 1);
  return n > 0 ? std::string(name.data()) : "";  // the value includes a NUL
}

bool fill_inet(const ProcFs& procfs, pid_t pid, uint64_t inode, const char* kind, WaitTarget& target) {
  for (const char* suffix : {"", "6"}) {
    const auto found = find_in_table(procfs.path(pid, std::string("net/") + kind + suffix),
                                     [&](std::string_view line) { return parse_inet_line(line, inode); });
    if (!found) continue;
    target.kind = kind;
    target.local = found->local;
    target.peer = found->peer;
    target.connected = !found->peer.empty();
    return true;
  }
  return false;
}

bool fill_unix(const ProcFs& procfs, pid_t pid, uint64_t inode, WaitTarget& target) {
  const auto found = find_in_table(procfs.path(pid, "net/unix"),
                                   [&](std::string_view line) { return parse_unix_line(line, inode); });
  if (!found) return false;
  target.kind = "unix";
  target.path = found->path;
  target.connected = found->connected;
  return true;
}

void fill_socket(const ProcFs& procfs, pid_t pid, uint64_t inode, const std::string& fd_path,
                 WaitTarget& target) {
  const std::string protocol = socket_protocol(fd_path);
  target.kind = protocol.starts_with("TCP")       ? "tcp"
                : protocol.starts_with("UDP")     ? "udp"
                : protocol.starts_with("UNIX")    ? "unix"
                : protocol.starts_with("NETLINK") ? "netlink"
                                                  : "socket";
  const bool unknown = protocol.empty();
  if ((unknown || target.kind == "tcp") && fill_inet(procfs, pid, inode, "tcp", target)) return;
  if ((unknown || target.kind == "udp") && fill_inet(procfs, pid, inode, "udp", target)) return;
  if (unknown || target.kind == "unix") fill_unix(procfs, pid, inode, target);
}

// The value of "KEY:\tVALUE" in /proc/PID/fdinfo/FD.
std::optional<int64_t> fdinfo_value(const ProcFs& procfs, pid_t pid, int fd, std::string_view key) {
  const auto text = procfs.read(pid, "fdinfo/" + std::to_string(fd));
  if (!text) return std::nullopt;
  for (const std::string_view line : split(*text, '\n')) {
    if (line.starts_with(key) && line.size() > key.size() && line[key.size()] == ':') {
      return number<int64_t>(trim(line.substr(key.size() + 1)));
    }
  }
  return std::nullopt;
}

void fill_pidfd(const ProcFs& procfs, pid_t pid, int fd, WaitTarget& target) {
  target.kind = "pidfd";
  if (const auto of = fdinfo_value(procfs, pid, fd, "Pid"); of && *of > 0)
    target.pid = static_cast<uint32_t>(*of);
}

// "[eventfd]", "inotify", "[io_uring]", "bpf-map".
void fill_anon(const ProcFs& procfs, pid_t pid, int fd, std::string_view name, WaitTarget& target) {
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  if (name == "pidfd") return fill_pidfd(procfs, pid, fd, target);
  static constexpr std::string_view kKinds[] = {"eventfd", "timerfd", "signalfd", "inotify", "io_uring"};
  if (name == "eventpoll") {
    target.kind = "epoll";
  } else if (std::find(std::begin(kKinds), std::end(kKinds), name) != std::end(kKinds)) {
    target.kind = name;
  } else {
    target.kind = "anon";
    target.path = name;
  }
}

void fill_path(std::string path, const std::string& fd_path, WaitTarget& target) {
  target.kind = "file";
  target.path = std::move(path);
  // Without asking the file's server: a stat of a file on a dead NFS mount would hang here too.
  struct statx s {};
  if (::statx(AT_FDCWD, fd_path.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &s) != 0) return;
  if (S_ISFIFO(s.stx_mode)) target.kind = "pipe";
  if (S_ISCHR(s.stx_mode) || S_ISBLK(s.stx_mode)) target.kind = "device";
}

}  // namespace

std::string render_endpoint(int family, const uint8_t* address, uint16_t port) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (family == AF_INET6 && std::memcmp(address, kMapped, sizeof(kMapped)) == 0) {
    return render_endpoint(AF_INET, address + sizeof(kMapped), port);
  }
  if (family != AF_INET && family != AF_INET6) return "";
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (!::inet_ntop(family, address, text.data(), text.size())) return "";
  const std::string host = text.data();
  return (family == AF_INET6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::optional<InetSocket> parse_inet_line(std::string_view line, uint64_t inode) {
  // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
  const auto fields = words(line);
  constexpr size_t kLocal = 1, kPeer = 2, kInode = 9;
  if (fields.size() <= kInode || number<uint64_t>(fields[kInode]) != inode) return std::nullopt;
  const auto local = parse_endpoint(fields[kLocal]);
  const auto peer = parse_endpoint(fields[kPeer]);
  if (!local || !peer) return std::nullopt;
  return InetSocket{local->render(), peer->is_any() ? "" : peer->render()};
}

std::optional<UnixSocket> parse_unix_line(std::string_view line, uint64_t inode) {
  // Num RefCount Protocol Flags Type St Inode Path; the path may hold blanks.
  const auto fields = words(line);
  constexpr size_t kState = 5, kInode = 6;
  if (fields.size() <= kInode || number<uint64_t>(fields[kInode]) != inode) return std::nullopt;
  UnixSocket socket;
  socket.connected = fields[kState] == "03";  // SS_CONNECTED of linux/net.h
  if (fields.size() > kInode + 1) {
    socket.path = line.substr(static_cast<size_t>(fields[kInode + 1].data() - line.data()));
  }
  return socket;
}

std::optional<WaitTarget> resolve_fd(const ProcFs& procfs, pid_t pid, int fd) {
  const std::string entry = "fd/" + std::to_string(fd);
  auto link = procfs.link(pid, entry);
  if (!link) return std::nullopt;

  WaitTarget target;
  target.fd = fd;
  const std::string fd_path = procfs.path(pid, entry);
  constexpr std::string_view kAnon = "anon_inode:";
  if (const auto inode = bracketed(*link, "socket:")) {
    fill_socket(procfs, pid, *inode, fd_path, target);
  } else if (bracketed(*link, "pipe:")) {
    target.kind = "pipe";
  } else if (bracketed(*link, "pidfd:")) {  // since Linux 6.9
    fill_pidfd(procfs, pid, fd, target);
  } else if (link->starts_with(kAnon)) {
    fill_anon(procfs, pid, fd, link->substr(kAnon.size()), target);
  } else {
    fill_path(std::move(*link), fd_path, target);
  }
  return target;
}

}  // namespace looptrace
