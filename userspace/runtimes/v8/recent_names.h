// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "looptrace.h"
#include "runtimes/runtime.h"

namespace looptrace::v8 {

/// The names of frames that were found a moment ago. While the collector runs, a frame of the very same call
/// (return address, function, bytecode) is captured again and again, and some of these captures are looked
/// at only when the collector has moved the function. At most 1024 calls. Not thread-safe.
class RecentNames {
 public:
  using Clock = std::chrono::steady_clock;
  /// So long, that what V8 put in the place of all of these objects is taken for them is out of the question.
  static constexpr std::chrono::seconds kMaxAge{1};

  void keep(const lt_v8_frame& frame, uint64_t address, std::span<const NamedFrame> names,
            Clock::time_point now);
  /// Empty if that call was not named within kMaxAge.
  std::vector<SharedFrame> find(const lt_v8_frame& frame, uint64_t address, Clock::time_point now) const;

 private:
  using Call = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t, uint64_t>;
  static Call call(const lt_v8_frame& frame, uint64_t address) {
    return {address, frame.shared, frame.scope, frame.bytecodes, frame.offset};
  }

  struct Named {
    std::vector<SharedFrame> frames;
    Clock::time_point at;
  };
  std::map<Call, Named> calls_;
};

}  // namespace looptrace::v8
