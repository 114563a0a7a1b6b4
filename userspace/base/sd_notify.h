// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace looptrace {

/// Tells systemd of a Type=notify service's state: one datagram to $NOTIFY_SOCKET, as sd_notify(3) has it.
/// Does nothing where there is no such socket; what systemd does not take is not worth failing for.
class SdNotify {
 public:
  SdNotify();  ///< reads the environment

  void ready(const std::string& status);
  void reloading();
  void stopping();
  void status(const std::string& status);
  /// "I am alive", if it is time: call often. Twice in the watchdog's interval is enough for it.
  void watchdog(uint64_t now_ns);
  /// What is done from here to the next watchdog() may take long on a slow host: the watchdog's interval is
  /// ten times as long until then. What hangs there is still found.
  void be_patient();

 private:
  void send(const std::string& message) const;
  void send_interval(uint64_t times) const;

  std::string socket_;
  uint64_t watchdog_ns_ = 0;  // 0 = none
  uint64_t last_ns_ = 0;
  bool patient_ = false;
};

}  // namespace looptrace
