// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "harness.h"

namespace looptrace::test {

constexpr uint64_t kMs = 1'000'000;

/// A directory with an agent.toml in it.
class Config {
 public:
  explicit Config(const std::string& text) { write(text); }
  void write(const std::string& text) { std::ofstream(path()) << text; }
  std::string path() const { return directory_.path() + "/agent.toml"; }

 private:
  Directory directory_;
};

/// The links and programs that a process holds: with none of its links there is none of its hooks.
inline size_t links_of(pid_t pid) {
  const std::string directory = "/proc/" + std::to_string(pid) + "/fd";
  DIR* dir = opendir(directory.c_str());
  if (!dir) return 0;
  size_t links = 0;
  while (const dirent* entry = readdir(dir)) {
    char target[128];
    const ssize_t n = readlink((directory + "/" + entry->d_name).c_str(), target, sizeof target);
    const std::string name(target, n > 0 ? static_cast<size_t>(n) : 0);
    links += name.find("bpf_link") != name.npos || name.find("bpf-link") != name.npos;
  }
  closedir(dir);
  return links;
}

// By its path: an agent is for what comes and goes, so it takes no pids.
inline std::string for_victim(const std::string& rest, const std::string& metrics = "") {
  return "[targets]\nexe = \"" + victim_path("epoll_sleep") + "\"\n[metrics]\nlisten = \"" + metrics +
         "\"\n" + rest;
}

/// A listening socket of 127.0.0.1; port 0 = any.
class Port {
 public:
  explicit Port(uint16_t port = 0) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    held_ = bind(fd_, reinterpret_cast<const sockaddr*>(&at), size) == 0 && listen(fd_, 4) == 0 &&
            getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &size) == 0;
    number_ = ntohs(at.sin_port);
  }
  ~Port() { close(fd_); }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;
  bool held() const { return held_; }
  uint16_t number() const { return number_; }
  std::string text() const { return "127.0.0.1:" + std::to_string(number_); }

 private:
  int fd_;
  bool held_;
  uint16_t number_;
};

inline uint16_t free_port() { return Port().number(); }

}  // namespace looptrace::test
