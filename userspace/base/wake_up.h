// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "base/fd.h"

namespace looptrace {

/// Wakes a thread that sleeps in poll(): an eventfd. It stays readable until taken.
class WakeUp {
 public:
  WakeUp() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  int fd() const { return fd_.get(); }
  /// Any thread.
  void send() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(fd_.get(), &one, sizeof one);  // full: it is readable anyway
  }
  void take() const {
    uint64_t count;
    [[maybe_unused]] const ssize_t n = ::read(fd_.get(), &count, sizeof count);  // empty: nobody sent
  }

 private:
  UniqueFd fd_;
};

}  // namespace looptrace
