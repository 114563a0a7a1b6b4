// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include "runtimes/remote_memory.h"
#include "runtimes/v8/layout.h"

namespace looptrace::v8 {

/// A word of V8's heap is a pointer to an object (address + 1) or a small integer (in the upper half).
inline bool is_object(uint64_t word) { return (word & 3) == 1; }
inline bool is_smi(uint64_t word) { return (word & 0xffffffff) == 0; }
inline int32_t to_int(uint64_t smi) { return static_cast<int32_t>(smi >> 32); }

/// A member of an object that was read.
template <typename T>
T load(const uint8_t* bytes, int offset) {
  T value;
  std::memcpy(&value, bytes + offset, sizeof value);
  return value;
}

/// Objects in the heap of another process. The collector may move them between two reads and between the
/// capture and now: nothing is believed before its type was checked, and all sizes are bounded.
class Heap {
 public:
  Heap(pid_t pid, const Layout& layout) : memory_(pid), layout_(layout) {}

  /// `size` bytes of `object`, map first, if it is an object of that type.
  bool read(uint64_t object, uint16_t type, void* into, size_t size);
  bool is(uint64_t object, uint16_t type);

  /// The word at `offset` of an object whose type is known; 0 if it cannot be read.
  uint64_t word(uint64_t object, int offset) const {
    return memory_.pointer(object - 1 + static_cast<uint64_t>(offset));
  }

  /// How many elements an array of that type has; nothing if it is none.
  std::optional<int> length(uint64_t array, uint16_t type);

  /// What a byte array of that type holds; empty if it is none or holds more than `limit` bytes.
  std::vector<uint8_t> byte_array(uint64_t object, uint16_t type, size_t limit);

  /// The text of a string as UTF-8, cut short after `limit` characters; nothing if it is no string.
  std::optional<std::string> text(uint64_t string, size_t limit = 1024) const;

  /// Where a string's characters lie, if they lie in one piece.
  struct Characters {
    uint64_t address = 0;
    uint32_t length = 0;
    bool two_bytes = false;
  };
  std::optional<Characters> characters(uint64_t string) const;

  /// The last `limit` characters of a string that lies in one piece, as UTF-8; empty if it does not.
  std::string end_of_text(uint64_t string, size_t limit) const;

  const RemoteMemory& memory() const { return memory_; }
  const Layout& layout() const { return layout_; }

 private:
  struct String {
    uint16_t type;
    uint32_t length;
    uint64_t first, second;  // the words behind the length
  };
  std::optional<String> string(uint64_t object) const;
  std::optional<uint16_t> type_of_map(uint64_t map) const;
  bool append(uint64_t string, size_t limit, int depth, std::u16string& into) const;
  bool append(const Characters& piece, std::u16string& into) const;

  RemoteMemory memory_;
  const Layout& layout_;
  // Maps of the few types that are read most. V8 keeps these in its read-only space: they never move.
  std::map<uint64_t, uint16_t> maps_;
};

}  // namespace looptrace::v8
