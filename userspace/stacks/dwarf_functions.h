// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "stacks/dwarf_entries.h"

namespace looptrace {

/// Where a unit's functions are, in its code and among its entries. To find them, all of its entries have to
/// be gone over once, in pieces: in two milliseconds for two megabytes.
class DwarfFunctions {
 public:
  struct Sections {
    std::string_view info, abbrev, ranges, rnglists, addr;
  };

  /// Of the unit from `begin` to `end` in .debug_info, whose header is there.
  DwarfFunctions(const Sections& sections, uint64_t begin, uint64_t end);

  /// Goes on with entries that end before `to`; the bytes from at() to there are there.
  void read(const Sections& sections, uint64_t to);
  uint64_t at() const { return entries_.at(); }
  bool done() const { return entries_.done(); }

  /// Goes from a function's entry down to the innermost code that holds an address; once all is read.
  class Search {
   public:
    Search(const DwarfFunctions& functions, uint64_t address);
    /// As the above.
    void read(const Sections& sections, uint64_t to);
    uint64_t at() const { return entries_.at(); }
    bool done() const { return entries_.done(); }
    /// The entries of the functions that were inlined there, outermost first.
    const std::vector<uint64_t>& inlined() const { return inlined_; }

   private:
    const DwarfFunctions& functions_;
    uint64_t address_;
    size_t ranges_left_;
    DwarfEntries entries_;
    std::vector<uint64_t> inlined_;
  };

  size_t bytes() const;

 private:
  struct Function {
    uint64_t low;
    uint32_t size;
    uint32_t at;  // in the unit
  };
  struct Bases {
    uint64_t low = 0;
    std::optional<uint64_t> addresses, lists;
  };
  std::optional<uint64_t> address_of(const Sections& sections, const DwarfValue& value) const;
  template <typename Take>
  void each_range(const Sections& sections, const DwarfEntries::Entry& entry, size_t& left, Take take) const;
  template <typename Take>
  void each_of_list(const Sections& sections, uint64_t at, size_t& left, Take take) const;
  void read_unit_entry(const Sections& sections, const DwarfEntries::Entry& entry);
  void finish();
  const Function* find(uint64_t address) const;

  uint64_t begin_, end_;
  DwarfEntryKinds::Format format_;
  std::optional<DwarfEntryKinds> kinds_;
  Bases bases_;
  size_t ranges_left_;
  DwarfEntries entries_;
  std::vector<Function> functions_;  // by low
};

}  // namespace looptrace
