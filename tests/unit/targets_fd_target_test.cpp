// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "base/fd.h"
#include "targets/fd_target.h"

namespace looptrace {
namespace {

WaitTarget resolve(const UniqueFd& fd) {
  auto target = resolve_fd(ProcFs(), ::getpid(), fd.get());
  EXPECT_TRUE(target);
  if (!target) return {};
  EXPECT_EQ(target->fd, fd.get());
  return *target;
}

TEST(Endpoint, RendersAddressesAsPeopleWriteThem) {
  const uint8_t v4[16] = {127, 0, 0, 1};
  EXPECT_EQ(render_endpoint(AF_INET, v4, 80), "127.0.0.1:80");
  const uint8_t v6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(render_endpoint(AF_INET6, v6, 65535), "[::1]:65535");
  const uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3};
  EXPECT_EQ(render_endpoint(AF_INET6, mapped, 5432), "10.1.2.3:5432");
  const uint8_t documentation[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x2a};
  EXPECT_EQ(render_endpoint(AF_INET6, documentation, 1), "[2001:db8::2a]:1");
  EXPECT_EQ(render_endpoint(AF_UNIX, v4, 1), "");
}

TEST(SocketTables, ParsesALine) {
  const char* line =
      "   1: 0100007F:1538 0200007F:9C40 01 00000000:00000000 00:00000000 00000000   999        0 4711 1 0 "
      "20 4 30 10 -1";
  const auto socket = parse_inet_line(line, 4711);
  ASSERT_TRUE(socket);
  EXPECT_EQ(socket->local, "127.0.0.1:5432");
  EXPECT_EQ(socket->peer, "127.0.0.2:40000");
  EXPECT_FALSE(parse_inet_line(line, 471));
  EXPECT_FALSE(parse_inet_line(
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid", 4711));

  const auto v6 = parse_inet_line(
      "0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 8 1 "
      "0",
      8);
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->local, "[::1]:80");
  EXPECT_EQ(v6->peer, "") << "a listener has no peer";
  EXPECT_FALSE(parse_inet_line("0: zz:0050 00000000:0000 0A 0:0 00:0 0 0 0 8 1 0", 8));
}

TEST(SocketTables, ParsesUnixLines) {
  const char* line = "0000000000000000: 00000002 00000000 00010000 0001 01 99 /run/a b.sock";
  EXPECT_EQ(parse_unix_line(line, 99)->path, "/run/a b.sock");
  EXPECT_EQ(parse_unix_line("0000000000000000: 00000003 00000000 00000000 0001 03 99", 99)->path, "");
  EXPECT_EQ(parse_unix_line("0000000000000000: 00000003 00000000 00000000 0001 03 99 @x", 99)->path, "@x");
  EXPECT_TRUE(parse_unix_line("0000000000000000: 00000003 00000000 00000000 0001 03 99", 99)->connected);
  EXPECT_FALSE(parse_unix_line("0000000000000000: 00000002 00000000 00010000 0001 01 99 /l", 99)->connected);
  EXPECT_FALSE(parse_unix_line(line, 9));
}

TEST(ResolveFd, TcpConnection) {
  for (const int family : {AF_INET, AF_INET6}) {
    UniqueFd listener(::socket(family, SOCK_STREAM, 0)), client(::socket(family, SOCK_STREAM, 0));
    sockaddr_storage address{};
    socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    address.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET) reinterpret_cast<sockaddr_in&>(address).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (family == AF_INET6) reinterpret_cast<sockaddr_in6&>(address).sin6_addr = in6addr_loopback;
    if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) continue;  // no IPv6 here
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), size), 0);

    const std::string host = family == AF_INET ? "127.0.0.1:" : "[::1]:";
    const std::string server =
        host + std::to_string(ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port));  // same place in both
    const WaitTarget connected = resolve(client);
    EXPECT_EQ(connected.kind, "tcp");
    EXPECT_EQ(connected.peer, server);
    EXPECT_TRUE(connected.local.starts_with(host)) << connected.local;
    const WaitTarget listening = resolve(listener);
    EXPECT_EQ(listening.local, server);
    EXPECT_EQ(listening.peer, "");
  }
}

TEST(ResolveFd, UdpSocket) {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(9);
  ASSERT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const WaitTarget target = resolve(fd);
  EXPECT_EQ(target.kind, "udp");
  EXPECT_EQ(target.peer, "127.0.0.1:9");
}

TEST(ResolveFd, UnixSockets) {
  const std::string path = "/tmp/looptrace-test-" + std::to_string(::getpid()) + ".sock";
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(fd.get(), 1), 0);
  const WaitTarget target = resolve(fd);
  EXPECT_EQ(target.kind, "unix");
  EXPECT_EQ(target.path, path);
  ::unlink(path.c_str());

  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  UniqueFd first(pair[0]), second(pair[1]);
  EXPECT_EQ(resolve(first).kind, "unix");
  EXPECT_EQ(resolve(first).path, "");
}

TEST(ResolveFd, OtherKinds) {
  sigset_t none;
  ::sigemptyset(&none);
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  const UniqueFd read_end(pipe_fds[0]), write_end(pipe_fds[1]);
  const std::string fifo = "/tmp/looptrace-fifo-" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const UniqueFd named(::open(fifo.c_str(), O_RDWR));

  EXPECT_EQ(resolve(read_end).kind, "pipe");
  EXPECT_EQ(resolve(named).kind, "pipe");
  EXPECT_EQ(resolve(named).path, fifo);
  ::unlink(fifo.c_str());
  EXPECT_EQ(resolve(UniqueFd(::eventfd(0, 0))).kind, "eventfd");
  EXPECT_EQ(resolve(UniqueFd(::timerfd_create(CLOCK_MONOTONIC, 0))).kind, "timerfd");
  EXPECT_EQ(resolve(UniqueFd(::epoll_create1(0))).kind, "epoll");
  EXPECT_EQ(resolve(UniqueFd(::signalfd(-1, &none, 0))).kind, "signalfd");
  EXPECT_EQ(resolve(UniqueFd(::inotify_init())).kind, "inotify");
  EXPECT_EQ(resolve(UniqueFd(::open("/dev/null", O_RDONLY))).kind, "device");
  EXPECT_EQ(resolve(UniqueFd(::open("/proc/self/stat", O_RDONLY))).kind, "file");
  EXPECT_EQ(resolve(UniqueFd(::memfd_create("m", 0))).kind, "file");
  EXPECT_EQ(resolve(UniqueFd(::socket(AF_NETLINK, SOCK_RAW, 0))).kind, "netlink");
  const WaitTarget pidfd = resolve(UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))));
  EXPECT_EQ(pidfd.kind, "pidfd");
  EXPECT_EQ(pidfd.pid, static_cast<uint32_t>(::getpid()));
}

TEST(ResolveFd, WhatIsGoneIsNothing) {
  EXPECT_FALSE(resolve_fd(ProcFs(), ::getpid(), 987654));
  EXPECT_FALSE(resolve_fd(ProcFs(), 0x3fffffff, 0));
}

}  // namespace
}  // namespace looptrace
