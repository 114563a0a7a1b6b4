// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/asyncio_offsets.h"

#include <array>
#include <cstdint>
#include <cstring>

namespace looptrace::cpython {
namespace {

// Of a Task: its size, name, awaited_by, is_task, awaited_by_is_set, coro, node. Of an interpreter: size,
// tasks' head. Of a thread: size, running loop, running task, tasks' head.
constexpr size_t kWords = 13;
constexpr size_t kTask = 0, kName = 1, kCoro = 5, kThread = 9, kRunningTask = 11;
constexpr uint64_t kLargest = 64u << 10;

}  // namespace

std::optional<AsyncioOffsets> decode_asyncio_offsets(std::string_view section) {
  std::array<uint64_t, kWords> words;
  if (section.size() != sizeof words) return std::nullopt;
  std::memcpy(words.data(), section.data(), sizeof words);
  const auto lies_in = [&](size_t member, size_t whole) {
    return words[whole] <= kLargest && words[member] % 8 == 0 && words[member] >= 16 &&
           words[member] < words[whole] && words[whole] - words[member] >= 8;
  };
  if (!lies_in(kName, kTask) || !lies_in(kCoro, kTask) || !lies_in(kRunningTask, kThread))
    return std::nullopt;
  return AsyncioOffsets{static_cast<int>(words[kCoro]), static_cast<int>(words[kName]),
                        static_cast<int>(words[kRunningTask])};
}

}  // namespace looptrace::cpython
