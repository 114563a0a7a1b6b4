// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "stacks/elf_object.h"
#include "stacks/raw_symbols.h"

namespace looptrace {

class ElfFile;

/// Function names by address: 16 bytes a symbol. The file's tables are in no order; they are read once and
/// not sorted, only dealt out into buckets by address. Names stay in the file and are read when asked for.
/// Not thread-safe. Where several symbols share an address the one that reads best is taken: a function
/// before an untyped label, with a size before without, then fewer leading underscores ("poll", not
/// "__GI___poll"), global before weak before local.
class SymbolTable {
 public:
  /// Of `file`, whose code must lie within 4 GiB.
  explicit SymbolTable(const ElfFile& file);

  /// Adds the functions of one table (SHT_SYMTAB, SHT_DYNSYM) of `from`, which must outlive this one. False
  /// if it has none. A function without a size ends where the next begins; so if the table does not have
  /// `all` of them, it is left out.
  bool add(const ElfFile& from, uint32_t type, bool all = true);
  /// The same, and keeps `from`.
  bool add(std::unique_ptr<ElfFile> from, uint32_t type);

  std::optional<Symbol> find(uint64_t address) const;
  size_t size() const { return entries_.size(); }
  size_t bytes() const;

 private:
  struct Entry {
    uint32_t start;  // from base_
    uint32_t size;
    uint32_t symbol;  // its number; in the highest bits how well it reads (lower is better), then its source
    uint32_t next;    // in the same bucket
  };
  struct Source {
    const ElfFile* file;
    SymbolSection section;
  };
  void deal_out();
  bool collect(uint32_t bucket, uint32_t up_to, std::vector<Entry>& into, size_t& steps) const;
  std::optional<uint32_t> end_without_size(const Entry& entry, size_t& steps) const;
  const std::string& name(const Entry& entry) const;
  bool reads_better(const Entry& a, const Entry& b) const;

  uint64_t base_;
  std::vector<Source> sources_;
  std::vector<std::unique_ptr<ElfFile>> kept_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> buckets_;  // their first entries
  uint32_t shift_ = 0;             // a bucket is 2^shift_ bytes
  mutable std::unordered_map<uint32_t, std::string> names_;
  mutable size_t name_bytes_ = 0;
};

/// Addresses by exact name: 8 bytes a symbol. Names stay in the file and are compared there.
class NameIndex {
 public:
  /// `file` must outlive the index.
  NameIndex(const ElfFile& file, const RawSymbols& raw);

  /// The symbol's name is a view of `name`.
  std::optional<Symbol> find(std::string_view name) const;
  size_t bytes() const { return index_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    uint32_t hash;
    uint32_t symbol;
  };
  const ElfFile& file_;
  SymbolSection section_;
  std::vector<Slot> index_;  // by hash
};

}  // namespace looptrace
