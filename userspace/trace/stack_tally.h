// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "looptrace.h"
#include "record/other_records.h"

namespace looptrace {

/// How the walks of a capture ended: the native one's enum lt_unwind_status; where that one is whole, what
/// enum lt_py_status says of the interpreter's frames.
constexpr uint32_t kInterpreterFault = LT_UNWIND_OFF + 1;
constexpr uint32_t kInterpreterFull = LT_UNWIND_OFF + 2;
constexpr uint32_t kInterpreterMismatch = LT_UNWIND_OFF + 3;
uint32_t walk_status(const lt_capture_head& head);

/// Why a walk ended before the thread's start, as records have it: "read_fault".
const char* unwind_status_name(uint32_t status);

/// How the walks of some stacks ended.
class StackTally {
 public:
  void add(uint32_t status) { ++by_status_[index(status)]; }
  /// A stack that was counted as `from` was walked anew.
  void change(uint32_t from, uint32_t to) {
    --by_status_[index(from)];
    ++by_status_[index(to)];
  }
  /// What was added since `before`, an earlier copy of this.
  StackCounts since(const StackTally& before) const;

 private:
  static constexpr size_t kStatuses = kInterpreterMismatch + 1;
  static size_t index(uint32_t status) { return status < kStatuses ? status : size_t{LT_UNWIND_UNSUPPORTED}; }
  std::array<uint64_t, kStatuses> by_status_{};
};

}  // namespace looptrace
