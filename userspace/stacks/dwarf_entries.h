// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "stacks/byte_reader.h"

namespace looptrace {

struct DwarfValue {
  enum class Class : uint8_t { none, number, address, address_index, list_index };
  Class kind = Class::none;
  uint64_t number = 0;
};

/// The kinds of a unit's entries (its abbreviations, DWARF 2 to 5), each with what it takes to step over one:
/// mostly to add a number. libdw takes 50 to 100 ns for an entry, and units have up to 200,000.
class DwarfEntryKinds {
 public:
  /// What is read of entries. All else is stepped over.
  enum What : uint8_t { kNothing, kSibling, kLow, kHigh, kRanges, kAddressBase, kListsBase, kWhats };
  enum class Role : uint8_t {
    other,
    container,  ///< may hold functions, and has no code itself
    block,      ///< of code; may have no ranges
    code,       ///< functions, also inlined ones, and the like
    unit,
  };
  enum class Length : uint8_t {
    fixed,
    leb,
    signed_leb,
    string,
    block1,
    block2,
    block4,
    block,
    indirect,
    constant,  ///< in the kind, not in the entry
  };
  struct Format {
    uint16_t version = 4;
    bool is_64 = false;
  };

  /// `table` begins with the unit's. Nothing if it is broken, or larger than we are ready to look at.
  static std::optional<DwarfEntryKinds> read(std::string_view table, const Format& format);

  size_t bytes() const;

 private:
  friend class DwarfEntries;
  static constexpr uint32_t kVaries = ~uint32_t{0};
  struct Kind {
    uint16_t tag = 0;  // 0: no entry is of this kind
    Role role = Role::other;
    bool has_children = false;
    uint32_t steps = 0, steps_end = 0, size = kVaries;
  };
  struct Step {
    Length length = Length::fixed;
    What what = kNothing;
    DwarfValue::Class value = DwarfValue::Class::none;
    uint16_t size = 0;  // or which constant
  };
  DwarfEntryKinds() = default;
  bool add(const Kind& kind, uint64_t attribute, uint64_t form, int64_t constant, unsigned& seen);
  uint32_t size_of_all(const Kind& kind) const;
  uint64_t take(const Step& step, ByteReader& in) const;

  Format format_;
  std::vector<Kind> kinds_;  // by their numbers, which are counted from 1
  std::vector<Step> steps_;
  std::vector<int64_t> constants_;
};

/// Goes over a unit's entries in their order, from one of them to the last of those beside it. What is below
/// an entry that was not entered is stepped over, and so is all of no interest.
class DwarfEntries {
 public:
  struct Entry {
    uint64_t at = 0;
    uint16_t tag = 0;
    DwarfEntryKinds::Role role{};
    std::array<DwarfValue, DwarfEntryKinds::kWhats> values;
    const DwarfValue& operator[](DwarfEntryKinds::What what) const { return values[what]; }
  };

  /// Of the unit from `begin` to `end` in .debug_info, from the entry at `at` on.
  DwarfEntries(uint64_t begin, uint64_t end, uint64_t at) : begin_(begin), end_(end), at_(at) {}

  /// Goes on to the next entry of code, or that may hold some. False if there is none that ends before `to`;
  /// `info` is not looked at from there on.
  bool next(const DwarfEntryKinds& kinds, std::string_view info, uint64_t to);
  const Entry& entry() const { return entry_; }
  /// What is below this entry comes next, then what is beside it.
  void enter() { entered_ = true; }
  /// What is below this entry comes next, and then nothing.
  void narrow() {
    entered_ = true;
    floor_ = depth_ + 1;
  }

  uint64_t at() const { return at_; }  ///< of what comes next
  /// There is no more, or what there is is broken.
  bool done() const { return done_; }
  void stop() { done_ = true; }

 private:
  void go_on();
  void pass(uint64_t sibling);
  void skip_hidden(const DwarfEntryKinds& kinds, std::string_view info);
  uint64_t sibling_of(const DwarfValue& value, uint64_t behind) const;

  uint64_t begin_, end_, at_;
  size_t depth_ = 0, floor_ = 0;
  size_t hidden_ = ~size_t{0};  // from that depth on
  bool done_ = false, at_entry_ = false, entered_ = false, has_children_ = false;
  Entry entry_;
};

}  // namespace looptrace
