// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

namespace looptrace {

/// Another process's memory, read by process_vm_readv (about 1 us a call; pages that are swapped out are
/// faulted in). Nothing read is to be trusted: it may be garbage, and it may change between two reads.
class RemoteMemory {
 public:
  explicit RemoteMemory(pid_t pid) : pid_(pid) {}

  /// All `size` bytes, or false.
  bool read(uint64_t address, void* into, size_t size) const {
    return read_some(address, into, size) == size;
  }

  /// The leading bytes, up to the first page that cannot be read. At most 1 MiB.
  size_t read_some(uint64_t address, void* into, size_t size) const;

  template <typename T>
  std::optional<T> get(uint64_t address) const {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    if (!read(address, &value, sizeof value)) return std::nullopt;
    return value;
  }

  /// The pointer at `address`, 0 if it is null or cannot be read.
  uint64_t pointer(uint64_t address) const { return get<uint64_t>(address).value_or(0); }

  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

}  // namespace looptrace
