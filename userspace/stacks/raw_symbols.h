// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <elf.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace looptrace {

class ElfFile;

/// A symbol table's bytes with its string table, not yet trusted.
struct RawSymbols {
  std::string entries;
  std::string names;
  uint64_t entries_at = 0;  ///< where they are in the file
  uint64_t names_at = 0;

  size_t size() const { return entries.size() / sizeof(Elf64_Sym); }
  Elf64_Sym at(size_t index) const;
  /// Empty where the name's offset is out of bounds or the name has no end.
  std::string_view name(const Elf64_Sym& symbol) const;
};

/// SHT_SYMTAB or SHT_DYNSYM. The latter is found by PT_DYNAMIC too, for files without section headers.
std::optional<RawSymbols> load_symbols(const ElfFile& file, uint32_t type);

}  // namespace looptrace
