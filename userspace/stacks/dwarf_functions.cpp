// SPDX-License-Identifier: Apache-2.0
#include "stacks/dwarf_functions.h"

#include <dwarf.h>

#include <algorithm>
#include <limits>

#include "stacks/byte_reader.h"

namespace looptrace {
namespace {

using Kinds = DwarfEntryKinds;
using Role = DwarfEntryKinds::Role;

constexpr size_t kMaxFunctions = 1u << 17;
constexpr size_t kMaxInlined = 64;
// Many entries of a broken file may have the same long list.
constexpr size_t kMaxRanges = 1u << 20, kMaxRangesOfSearch = 1u << 18;

bool has(const DwarfValue& value) { return value.kind != DwarfValue::Class::none; }

std::optional<uint64_t> number_at(std::string_view section, uint64_t at, bool is_64) {
  if (at > section.size()) return std::nullopt;
  ByteReader in(section.substr(at));
  const uint64_t number = is_64 ? in.get<uint64_t>() : in.get<uint32_t>();
  if (in.failed()) return std::nullopt;
  return number;
}

}  // namespace

DwarfFunctions::DwarfFunctions(const Sections& sections, uint64_t begin, uint64_t end)
    : begin_(begin), end_(end), ranges_left_(kMaxRanges), entries_(begin, end, begin) {
  entries_.stop();
  if (begin > end || end > sections.info.size()) return;
  ByteReader in(sections.info.substr(begin, end - begin));
  format_.is_64 = in.get<uint32_t>() == 0xffffffff;
  if (format_.is_64) (void)in.get<uint64_t>();
  const auto offset = [&] { return format_.is_64 ? in.get<uint64_t>() : in.get<uint32_t>(); };
  format_.version = in.get<uint16_t>();
  if (format_.version < 2 || format_.version > 5) return;
  uint8_t type = DW_UT_compile, address_size = 0;
  uint64_t table = 0;
  if (format_.version == 5) {
    type = in.get<uint8_t>();
    address_size = in.get<uint8_t>();
    table = offset();
    if (type == DW_UT_skeleton) (void)in.get<uint64_t>();
  } else {
    table = offset();
    address_size = in.get<uint8_t>();
  }
  if (in.failed() || address_size != sizeof(uint64_t) || table > sections.abbrev.size()) return;
  if (type != DW_UT_compile && type != DW_UT_partial && type != DW_UT_skeleton) return;
  kinds_ = Kinds::read(sections.abbrev.substr(table), format_);
  if (kinds_) entries_ = DwarfEntries(begin, end, begin + in.offset());
}

std::optional<uint64_t> DwarfFunctions::address_of(const Sections& sections, const DwarfValue& value) const {
  if (value.kind == DwarfValue::Class::address) return value.number;
  if (value.kind != DwarfValue::Class::address_index || !bases_.addresses ||
      value.number >= sections.addr.size())
    return std::nullopt;
  return number_at(sections.addr, *bases_.addresses + value.number * sizeof(uint64_t), true);
}

// As dwarf_ranges() has them: a list only where there is no pair.
template <typename Take>
void DwarfFunctions::each_range(const Sections& sections, const DwarfEntries::Entry& entry, size_t& left,
                                Take take) const {
  const DwarfValue& low_value = entry[Kinds::kLow];
  const DwarfValue& high_value = entry[Kinds::kHigh];
  if (has(high_value)) {
    if (const auto low = address_of(sections, low_value)) {
      const auto high = high_value.kind == DwarfValue::Class::number ? *low + high_value.number
                                                                     : address_of(sections, high_value);
      if (high && *low < *high) take(*low, *high);
      return;
    }
  }
  const DwarfValue& list = entry[Kinds::kRanges];
  if (list.kind == DwarfValue::Class::number) {
    each_of_list(sections, list.number, left, take);
  } else if (list.kind == DwarfValue::Class::list_index && bases_.lists &&
             list.number < sections.rnglists.size()) {
    const uint64_t at = *bases_.lists + list.number * (format_.is_64 ? 8 : 4);
    if (const auto offset = number_at(sections.rnglists, at, format_.is_64))
      each_of_list(sections, *bases_.lists + *offset, left, take);
  }
}

template <typename Take>
void DwarfFunctions::each_of_list(const Sections& sections, uint64_t at, size_t& left, Take take) const {
  const std::string_view section = format_.version < 5 ? sections.ranges : sections.rnglists;
  if (at > section.size()) return;
  ByteReader in(section.substr(at));
  uint64_t base = bases_.low;
  if (format_.version < 5) {
    while (left) {
      --left;
      const auto low = in.get<uint64_t>(), high = in.get<uint64_t>();
      if (in.failed() || (low == 0 && high == 0)) return;
      if (low == std::numeric_limits<uint64_t>::max())
        base = high;
      else if (low < high)
        take(base + low, base + high);
    }
    return;
  }
  const auto indexed = [&] { return address_of(sections, {DwarfValue::Class::address_index, in.uleb()}); };
  while (left) {
    --left;
    std::optional<uint64_t> low, high;
    switch (in.get<uint8_t>()) {
      case DW_RLE_base_addressx:
        if (const auto there = indexed())
          base = *there;
        else
          return;
        continue;
      case DW_RLE_base_address:
        base = in.get<uint64_t>();
        continue;
      case DW_RLE_startx_endx:
        low = indexed();
        high = indexed();
        break;
      case DW_RLE_startx_length:
        low = indexed();
        high = low.value_or(0) + in.uleb();
        break;
      case DW_RLE_offset_pair:
        low = base + in.uleb();
        high = base + in.uleb();
        break;
      case DW_RLE_start_end:
        low = in.get<uint64_t>();
        high = in.get<uint64_t>();
        break;
      case DW_RLE_start_length:
        low = in.get<uint64_t>();
        high = *low + in.uleb();
        break;
      default:  // the end, or unknown
        return;
    }
    if (in.failed()) return;
    if (low && high && *low < *high) take(*low, *high);
  }
}

void DwarfFunctions::read_unit_entry(const Sections& sections, const DwarfEntries::Entry& entry) {
  if (const auto& base = entry[Kinds::kAddressBase]; base.kind == DwarfValue::Class::number)
    bases_.addresses = base.number;
  if (const auto& base = entry[Kinds::kListsBase]; base.kind == DwarfValue::Class::number)
    bases_.lists = base.number;
  bases_.low = address_of(sections, entry[Kinds::kLow]).value_or(0);
}

void DwarfFunctions::read(const Sections& sections, uint64_t to) {
  while (entries_.next(*kinds_, sections.info, to)) {
    const DwarfEntries::Entry& entry = entries_.entry();
    const bool has_ranges = has(entry[Kinds::kLow]) || has(entry[Kinds::kRanges]);
    if (entry.role == Role::unit) {
      read_unit_entry(sections, entry);
      entries_.narrow();
    } else if (entry.role == Role::container || (entry.role == Role::block && !has_ranges)) {
      entries_.enter();
    } else if (has_ranges) {
      each_range(sections, entry, ranges_left_, [&](uint64_t low, uint64_t high) {
        // At 0 are those that the linker has left out.
        if (low == 0 || functions_.size() >= kMaxFunctions) return;
        constexpr uint64_t kMaxSize = std::numeric_limits<uint32_t>::max();
        functions_.push_back({low, static_cast<uint32_t>(std::min(high - low, kMaxSize)),
                              static_cast<uint32_t>(entry.at - begin_)});
      });
    }
  }
  if (done()) finish();
}

// Of those that hold the same code, as where the linker has put equal functions together, the first counts.
void DwarfFunctions::finish() {
  std::sort(functions_.begin(), functions_.end(), [](const Function& a, const Function& b) {
    return std::pair(a.low, a.at) < std::pair(b.low, b.at);
  });
  functions_.erase(std::unique(functions_.begin(), functions_.end(),
                               [](const Function& a, const Function& b) {
                                 return a.at < b.at && b.low - a.low + b.size <= a.size;
                               }),
                   functions_.end());
  functions_.shrink_to_fit();
}

const DwarfFunctions::Function* DwarfFunctions::find(uint64_t address) const {
  auto it = std::upper_bound(functions_.begin(), functions_.end(), address,
                             [](uint64_t at, const Function& function) { return at < function.low; });
  const Function* found = nullptr;
  // Ranges of a broken file may overlap.
  for (int i = 0; i < 8 && it != functions_.begin(); ++i) {
    --it;
    if (address - it->low < it->size && (!found || it->at < found->at)) found = &*it;
  }
  return found;
}

size_t DwarfFunctions::bytes() const {
  return sizeof *this + (kinds_ ? kinds_->bytes() : 0) + functions_.capacity() * sizeof functions_[0];
}

DwarfFunctions::Search::Search(const DwarfFunctions& functions, uint64_t address)
    : functions_(functions),
      address_(address),
      ranges_left_(kMaxRangesOfSearch),
      entries_(functions.begin_, functions.end_, functions.begin_) {
  if (const Function* const found = functions.find(address))
    entries_ = DwarfEntries(functions.begin_, functions.end_, functions.begin_ + found->at);
  else
    entries_.stop();
}

void DwarfFunctions::Search::read(const Sections& sections, uint64_t to) {
  while (entries_.next(*functions_.kinds_, sections.info, to)) {
    const DwarfEntries::Entry& entry = entries_.entry();
    const bool has_ranges = has(entry[Kinds::kLow]) || has(entry[Kinds::kRanges]);
    if (entry.role == Role::container || (entry.role == Role::block && !has_ranges)) {
      entries_.enter();
    } else if (has_ranges) {
      bool is_here = false;
      functions_.each_range(sections, entry, ranges_left_, [&](uint64_t low, uint64_t high) {
        is_here |= low <= address_ && address_ < high;
      });
      if (!is_here) continue;
      if (entry.tag == DW_TAG_subprogram) inlined_.clear();
      if (entry.tag == DW_TAG_inlined_subroutine && inlined_.size() < kMaxInlined)
        inlined_.push_back(entry.at);
      entries_.narrow();
    }
  }
}

}  // namespace looptrace
