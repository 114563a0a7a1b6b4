// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "base/fd.h"
#include "base/sd_notify.h"
#include "base/sha256.h"

namespace looptrace {
namespace {

/// What systemd listens with: a socket under an abstract name or a path.
class Listener {
 public:
  explicit Listener(const std::string& name)
      : name_(name), fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ~Listener() {
    ::unsetenv("NOTIFY_SOCKET");
    if (name_[0] != '@') ::unlink(name_.c_str());
  }
  std::string read() {
    char text[256];
    const ssize_t n = ::recv(fd_.get(), text, sizeof text, 0);
    return n < 0 ? "" : std::string(text, static_cast<size_t>(n));
  }

 private:
  std::string name_;
  UniqueFd fd_;
};

TEST(SdNotify, TellsByPathAndByAbstractName) {
  const std::string unique = "looptrace-test-" + std::to_string(getpid());
  for (const std::string& name : {"@" + unique, "/tmp/" + unique}) {
    Listener listener(name);
    SdNotify notify;
    notify.ready("tracing");
    EXPECT_EQ(listener.read(), "READY=1\nSTATUS=tracing\n") << name;
    notify.reloading();
    EXPECT_TRUE(listener.read().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    notify.stopping();
    EXPECT_EQ(listener.read(), "STOPPING=1\n");
  }
}

TEST(SdNotify, TheWatchdogIsFedThriceAnInterval) {
  Listener listener("@looptrace-dog-" + std::to_string(getpid()));
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  SdNotify notify;
  ::setenv("WATCHDOG_PID", "1", 1);
  SdNotify of_another;
  ::unsetenv("WATCHDOG_PID");
  ::unsetenv("WATCHDOG_USEC");
  constexpr uint64_t kSecond = 1'000'000'000;
  int fed = 0;
  for (uint64_t s = 100; s < 160; ++s) {
    notify.watchdog(s * kSecond);
    of_another.watchdog(s * kSecond);
    while (!listener.read().empty()) ++fed;
  }
  EXPECT_EQ(fed, 6);
}

TEST(SdNotify, TheWatchdogWaitsForLongWork) {
  Listener listener("@looptrace-patience-" + std::to_string(getpid()));
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  SdNotify notify;
  ::unsetenv("WATCHDOG_USEC");
  constexpr uint64_t kSecond = 1'000'000'000;
  notify.watchdog(100 * kSecond);
  EXPECT_EQ(listener.read(), "WATCHDOG=1\n");
  notify.be_patient();
  notify.be_patient();
  EXPECT_EQ(listener.read(), "WATCHDOG_USEC=300000000\n");
  EXPECT_EQ(listener.read(), "") << "said once";
  notify.watchdog(101 * kSecond);
  EXPECT_EQ(listener.read(), "WATCHDOG_USEC=30000000\n");
  EXPECT_EQ(listener.read(), "WATCHDOG=1\n");
  notify.watchdog(102 * kSecond);
  EXPECT_EQ(listener.read(), "") << "as before";

  SdNotify without_watchdog;
  without_watchdog.be_patient();
  EXPECT_EQ(listener.read(), "");
}

TEST(SdNotify, IsSilentWithoutASocket) {
  ::unsetenv("NOTIFY_SOCKET");
  SdNotify().ready("nobody hears it");
  ::setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
  SdNotify().ready("nobody hears it");
  ::unsetenv("NOTIFY_SOCKET");
}

// RFC 4231, test cases 2 and 6 (a key longer than a block).
TEST(Hmac, KnownAnswers) {
  EXPECT_EQ(hmac_sha256_hex("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(
      hmac_sha256_hex(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

}  // namespace
}  // namespace looptrace
