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

/// Function names by address: 16 bytes a function. Names stay in the file and are read when asked for, 80
/// bytes each in node; only those that are in no file (of PLT stubs, of .gnu_debugdata) are kept. Not
/// thread-safe. Where several symbols share an address the one that reads best is kept: a function before an
/// untyped label, with a size before without, then fewer leading underscores ("poll", not "__GI___poll"),
/// global before weak before local.
class SymbolTable {
 public:
  class Builder;

  std::optional<Symbol> find(uint64_t address) const;
  size_t size() const { return entries_.size(); }
  size_t bytes() const;

 private:
  struct Entry {
    uint64_t start;
    uint32_t size;
    uint32_t name;  // offset in names_, NUL-terminated; with kInFile, from names_at_ in *file_
  };
  static constexpr uint32_t kInFile = 1u << 31;
  std::string_view name(uint32_t at) const;

  std::vector<Entry> entries_;
  std::string names_;
  const ElfFile* file_ = nullptr;
  uint64_t names_at_ = 0, names_size_ = 0;
  mutable std::unordered_map<uint32_t, std::string> read_;
  mutable size_t read_bytes_ = 0;
};

class SymbolTable::Builder {
 public:
  /// Adds the functions of one table of `file`. False if it has none. A function without a size ends where
  /// the next begins; so if the table does not have `all` of them, it is left out.
  bool add(const ElfFile& file, RawSymbols raw, bool all = true);
  /// The same; their names are left in `file`, which must outlive the table. One file only.
  bool add_without_names(const ElfFile& file, RawSymbols raw);
  /// Adds "name@plt" for the stubs of .plt, .plt.sec and .plt.got (x86-64).
  void add_plt(const ElfFile& file, const RawSymbols& dynamic);
  SymbolTable build();

 private:
  struct Candidate {
    uint64_t start;
    uint64_t size;
    uint64_t limit;  // where a symbol without a size ends at the latest
    std::string_view name;
    uint8_t rank;  // lower is better
  };
  std::vector<Candidate> candidates_;
  std::vector<std::unique_ptr<RawSymbols>> sources_;  // candidates' names point into these
  std::vector<std::unique_ptr<std::string>> plt_names_;
  const RawSymbols* left_ = nullptr;  // whose names stay in left_file_
  const ElfFile* left_file_ = nullptr;
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
  uint64_t entries_at_, names_at_, names_size_;
  std::vector<Slot> index_;  // by hash
};

}  // namespace looptrace
