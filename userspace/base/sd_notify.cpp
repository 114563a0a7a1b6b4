// SPDX-License-Identifier: Apache-2.0
#include "base/sd_notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/fd.h"

namespace looptrace {

namespace {
constexpr uint64_t kPatience = 10;
}

SdNotify::SdNotify() {
  if (const char* socket = std::getenv("NOTIFY_SOCKET")) socket_ = socket;
  const char* usec = std::getenv("WATCHDOG_USEC");
  const char* pid = std::getenv("WATCHDOG_PID");
  // Meant for another process, if it names one.
  if (usec && (!pid || std::strtol(pid, nullptr, 10) == getpid()))
    watchdog_ns_ = std::strtoull(usec, nullptr, 10) * 1000;
}

void SdNotify::ready(const std::string& status) { send("READY=1\nSTATUS=" + status + "\n"); }

// Type=notify-reload wants to know since when.
void SdNotify::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  send("RELOADING=1\nMONOTONIC_USEC=" +
       std::to_string(static_cast<uint64_t>(now.tv_sec) * 1'000'000 +
                      static_cast<uint64_t>(now.tv_nsec) / 1000) +
       "\n");
}

void SdNotify::stopping() { send("STOPPING=1\n"); }
void SdNotify::status(const std::string& status) { send("STATUS=" + status + "\n"); }

void SdNotify::watchdog(uint64_t now_ns) {
  if (!watchdog_ns_ || (!patient_ && now_ns - last_ns_ < watchdog_ns_ / 3)) return;
  if (std::exchange(patient_, false)) send_interval(1);
  last_ns_ = now_ns;
  send("WATCHDOG=1\n");
}

void SdNotify::be_patient() {
  if (!watchdog_ns_ || std::exchange(patient_, true)) return;
  send_interval(kPatience);
}

// A new interval begins at once.
void SdNotify::send_interval(uint64_t times) const {
  send("WATCHDOG_USEC=" + std::to_string(watchdog_ns_ / 1000 * times) + "\n");
}

void SdNotify::send(const std::string& message) const {
  sockaddr_un address{};
  if (socket_.size() < 2 || socket_.size() > sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') address.sun_path[0] = '\0';  // an abstract name
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  (void)::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), length);
}

}  // namespace looptrace
