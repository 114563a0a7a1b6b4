// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stacks/elf_object.h"
#include "stacks/raw_symbols.h"

namespace looptrace {

class ElfFile;

/// Names of the stubs in .plt, .plt.sec and .plt.got (x86-64): "write@plt". A stub is decoded when it is
/// asked for; the relocations are read at the first. Not thread-safe.
class PltNames {
 public:
  /// `file` must outlive it.
  explicit PltNames(const ElfFile& file) : file_(file) {}

  std::optional<Symbol> find(uint64_t address);
  size_t bytes() const { return slots_.capacity() * sizeof slots_[0] + name_bytes_; }

 private:
  void load();

  const ElfFile& file_;
  bool loaded_ = false;
  std::vector<std::pair<uint64_t, uint32_t>> slots_;  // address of the GOT entry, symbol; sorted
  std::optional<SymbolSection> symbols_;
  std::unordered_map<uint64_t, std::string> names_;  // by address of the stub
  size_t name_bytes_ = 0;
};

}  // namespace looptrace
