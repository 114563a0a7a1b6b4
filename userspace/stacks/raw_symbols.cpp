// SPDX-License-Identifier: Apache-2.0
#include "stacks/raw_symbols.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "stacks/elf_file.h"

namespace looptrace {
namespace {

constexpr uint64_t kMaxSymbols = 4u << 20;

std::optional<SymbolSection> find_dynamic_symbols(const ElfFile& file) {
  uint64_t symbols = 0, names = 0, names_size = 0, hash = 0;
  for (const Elf64_Dyn& entry : file.read_dynamic()) {
    if (entry.d_tag == DT_SYMTAB) symbols = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRTAB) names = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRSZ) names_size = entry.d_un.d_val;
    if (entry.d_tag == DT_HASH) hash = entry.d_un.d_ptr;
  }
  const auto entries_at = file.offset_of(symbols), names_at = file.offset_of(names);
  if (!symbols || !names || !entries_at || !names_at || names_size > ElfFile::kMaxPiece) return std::nullopt;
  // No tag has the number of symbols. DT_HASH does; else linkers put the strings right behind.
  uint64_t count = names > symbols ? (names - symbols) / sizeof(Elf64_Sym) : 0;
  uint32_t buckets_and_chains[2];
  if (hash && file.read(hash, buckets_and_chains, sizeof buckets_and_chains)) count = buckets_and_chains[1];
  const uint64_t there = (file.size() - std::min(file.size(), *entries_at)) / sizeof(Elf64_Sym);
  count = std::min({count, kMaxSymbols, there});
  names_size = std::min(names_size, file.size() - std::min(file.size(), *names_at));
  if (count == 0) return std::nullopt;
  return SymbolSection{*entries_at, count, *names_at, names_size};
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

std::optional<SymbolSection> find_symbols(const ElfFile& file, uint32_t type) {
  if (const ElfFile::Section* table = file.find_section_of_type(type)) {
    const uint32_t link = table->header.sh_link;
    const uint64_t count = table->header.sh_size / sizeof(Elf64_Sym);
    if (count == 0 || count > kMaxSymbols || link >= file.sections().size()) return std::nullopt;
    const Elf64_Shdr& names = file.sections()[link].header;
    return SymbolSection{table->header.sh_offset, count, names.sh_offset, names.sh_size};
  }
  if (type == SHT_DYNSYM && file.sections().empty()) return find_dynamic_symbols(file);
  return std::nullopt;
}

std::string read_name(const ElfFile& file, const SymbolSection& symbols, uint64_t offset) {
  constexpr size_t kMaxName = 1 << 16;  // C++ templates come to tens of thousands
  std::string text;
  while (offset < symbols.names_size && text.size() < kMaxName) {
    std::array<char, 256> piece;
    const size_t size = std::min<uint64_t>(piece.size(), symbols.names_size - offset);
    if (!file.pread(symbols.names_at + offset, piece.data(), size)) return {};
    const void* nul = std::memchr(piece.data(), 0, size);
    text.append(piece.data(), nul ? static_cast<const char*>(nul) - piece.data() : size);
    if (nul) return text;
    offset += size;
  }
  return {};
}

std::optional<RawSymbols> load_symbols(const ElfFile& file, uint32_t type) {
  const auto section = find_symbols(file, type);
  if (!section) return std::nullopt;
  RawSymbols raw{*section, file.load(section->entries_at, section->count * sizeof(Elf64_Sym)),
                 file.load(section->names_at, section->names_size)};
  if (raw.size() == 0) return std::nullopt;
  return raw;
}

}  // namespace looptrace
