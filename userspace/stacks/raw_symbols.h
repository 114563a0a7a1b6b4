// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <elf.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace looptrace {

class ElfFile;

/// Where a symbol table and its strings are in a file. Not yet trusted.
struct SymbolSection {
  uint64_t entries_at = 0, count = 0;
  uint64_t names_at = 0, names_size = 0;
};

/// SHT_SYMTAB or SHT_DYNSYM. The latter is found by PT_DYNAMIC too, for files without section headers.
std::optional<SymbolSection> find_symbols(const ElfFile& file, uint32_t type);

/// The name at `offset` of the strings; empty where that is out of bounds or cannot be read.
std::string read_name(const ElfFile& file, const SymbolSection& symbols, uint64_t offset);

/// A symbol table's bytes with its string table, not yet trusted.
struct RawSymbols {
  SymbolSection section;
  std::string entries;
  std::string names;

  size_t size() const { return entries.size() / sizeof(Elf64_Sym); }
  Elf64_Sym at(size_t index) const;
  /// Empty where the name's offset is out of bounds or the name has no end.
  std::string_view name(const Elf64_Sym& symbol) const;
};

std::optional<RawSymbols> load_symbols(const ElfFile& file, uint32_t type);

}  // namespace looptrace
