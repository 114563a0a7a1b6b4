// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "looptrace.h"
#include "runtimes/cpython/offsets.h"
#include "runtimes/cpython/source_file.h"
#include "runtimes/remote_memory.h"

namespace looptrace::cpython {

/// What is kept of one code object: enough to name any of its instructions without another read.
struct Code {
  std::string function;  ///< co_qualname (3.11+), co_name
  std::shared_ptr<const SourceFile> source;
  int first_line = 0;
  uint32_t flags = 0;     ///< co_flags
  uint64_t bytecode = 0;  ///< bytes of it (3.11+)
  /// The line table; nothing if it is larger than 4 MiB (100,000 lines of generated code).
  std::optional<std::vector<uint8_t>> lines;
};

/// Code objects, read from the process on first use. Their address alone will not do: code objects are freed
/// and their memory reused, that of a module's own code with the next import. Least recently used ones go
/// when there are more than 16384 or when they hold more than 8 MiB. Not thread-safe.
class CodeCache {
 public:
  /// `code_type` is the address of PyCode_Type, 0 = do not check.
  CodeCache(const RemoteMemory& memory, const Offsets& offsets, uint64_t code_type);

  /// Null if there is no longer the code object that the frame ran, as far as its first line and names were
  /// captured. Valid until the next call.
  const Code* find(const lt_py_frame& frame);

  size_t entries() const { return order_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Key {
    uint64_t address;
    uint32_t first_line;
    uint16_t names;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const {
      return (key.address >> 4 ^ uint64_t{key.first_line} << 40 ^ uint64_t{key.names} << 48) *
                 0x9e3779b97f4a7c15u >>
             16;
    }
  };
  struct Entry {
    Key key;
    Code code;
  };

  std::unique_ptr<Code> read(const Key& captured);
  std::optional<std::vector<uint8_t>> read_bytes(uint64_t address) const;
  std::shared_ptr<const SourceFile> source(const std::string& filename);
  void evict();

  const RemoteMemory& memory_;
  const Offsets& offsets_;
  const uint64_t code_type_;
  std::list<Entry> order_;  // most recently used first
  std::unordered_map<Key, std::list<Entry>::iterator, Hash> index_;
  std::unordered_map<std::string, std::weak_ptr<const SourceFile>> sources_;
  size_t bytes_ = 0;
};

}  // namespace looptrace::cpython
