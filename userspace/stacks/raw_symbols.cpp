// SPDX-License-Identifier: Apache-2.0
#include "stacks/raw_symbols.h"

#include <algorithm>
#include <cstring>

#include "stacks/elf_file.h"

namespace looptrace {
namespace {

constexpr uint64_t kMaxSymbols = 4u << 20;

std::optional<RawSymbols> load_dynamic_symbols(const ElfFile& file) {
  uint64_t symbols = 0, names = 0, names_size = 0, hash = 0;
  for (const Elf64_Dyn& entry : file.read_dynamic()) {
    if (entry.d_tag == DT_SYMTAB) symbols = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRTAB) names = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRSZ) names_size = entry.d_un.d_val;
    if (entry.d_tag == DT_HASH) hash = entry.d_un.d_ptr;
  }
  if (!symbols || !names || names_size > ElfFile::kMaxPiece) return std::nullopt;
  // No tag has the number of symbols. DT_HASH does; else linkers put the strings right behind.
  uint64_t count = names > symbols ? (names - symbols) / sizeof(Elf64_Sym) : 0;
  uint32_t buckets_and_chains[2];
  if (hash && file.read(hash, buckets_and_chains, sizeof buckets_and_chains)) count = buckets_and_chains[1];
  count = std::min(count, kMaxSymbols);
  RawSymbols raw;
  raw.entries = file.load_from_address(symbols, count * sizeof(Elf64_Sym));
  raw.names = file.load_from_address(names, names_size);
  if (raw.size() == 0) return std::nullopt;
  raw.entries_at = file.offset_of(symbols).value_or(0);
  raw.names_at = file.offset_of(names).value_or(0);
  return raw;
}

}  // namespace

Elf64_Sym RawSymbols::at(size_t index) const {
  Elf64_Sym symbol;
  std::memcpy(&symbol, entries.data() + index * sizeof symbol, sizeof symbol);
  return symbol;
}

std::string_view RawSymbols::name(const Elf64_Sym& symbol) const {
  if (symbol.st_name >= names.size()) return {};
  const char* start = names.data() + symbol.st_name;
  const void* nul = std::memchr(start, 0, names.size() - symbol.st_name);
  if (!nul) return {};
  return {start, static_cast<size_t>(static_cast<const char*>(nul) - start)};
}

std::optional<RawSymbols> load_symbols(const ElfFile& file, uint32_t type) {
  if (const ElfFile::Section* table = file.find_section_of_type(type)) {
    const uint32_t link = table->header.sh_link;
    if (table->header.sh_size / sizeof(Elf64_Sym) > kMaxSymbols || link >= file.sections().size())
      return std::nullopt;
    RawSymbols raw;
    raw.entries = file.load(*table);
    if (raw.size() == 0) return std::nullopt;
    raw.names = file.load(file.sections()[link]);
    raw.entries_at = table->header.sh_offset;
    raw.names_at = file.sections()[link].header.sh_offset;
    return raw;
  }
  if (type == SHT_DYNSYM && file.sections().empty()) return load_dynamic_symbols(file);
  return std::nullopt;
}

}  // namespace looptrace
