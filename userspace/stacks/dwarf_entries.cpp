// SPDX-License-Identifier: Apache-2.0
#include "stacks/dwarf_entries.h"

#include <dwarf.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace looptrace {
namespace {

// Compilers number the kinds of a unit from 1 on without gaps, and have some hundreds.
constexpr uint64_t kMaxKinds = 1u << 16;
constexpr size_t kMaxSteps = 1u << 18, kMaxConstants = 1u << 16;
constexpr uint16_t kMaxFixed = 1u << 15;
constexpr size_t kNever = ~size_t{0};

DwarfEntryKinds::Role role_of(uint64_t tag) {
  switch (tag) {
    case DW_TAG_compile_unit:
    case DW_TAG_partial_unit:
    case DW_TAG_skeleton_unit:
      return DwarfEntryKinds::Role::unit;
    case DW_TAG_namespace:
    case DW_TAG_module:
    case DW_TAG_structure_type:
    case DW_TAG_class_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type:
      return DwarfEntryKinds::Role::container;
    case DW_TAG_lexical_block:
      return DwarfEntryKinds::Role::block;
    case DW_TAG_subprogram:
    case DW_TAG_inlined_subroutine:
    case DW_TAG_try_block:
    case DW_TAG_catch_block:
      return DwarfEntryKinds::Role::code;
    default:
      return DwarfEntryKinds::Role::other;
  }
}

DwarfEntryKinds::What what_of(uint64_t attribute, DwarfEntryKinds::Role role, bool has_children) {
  using Role = DwarfEntryKinds::Role;
  const bool is_code = role == Role::block || role == Role::code;
  switch (attribute) {
    case DW_AT_sibling:
      return has_children ? DwarfEntryKinds::kSibling : DwarfEntryKinds::kNothing;
    case DW_AT_low_pc:
      return is_code || role == Role::unit ? DwarfEntryKinds::kLow : DwarfEntryKinds::kNothing;
    case DW_AT_high_pc:
      return is_code ? DwarfEntryKinds::kHigh : DwarfEntryKinds::kNothing;
    case DW_AT_ranges:
      return is_code ? DwarfEntryKinds::kRanges : DwarfEntryKinds::kNothing;
    case DW_AT_addr_base:
      return role == Role::unit ? DwarfEntryKinds::kAddressBase : DwarfEntryKinds::kNothing;
    case DW_AT_rnglists_base:
      return role == Role::unit ? DwarfEntryKinds::kListsBase : DwarfEntryKinds::kNothing;
    default:
      return DwarfEntryKinds::kNothing;
  }
}

// How long a value is; nothing if each may have another length, or if we do not know the form.
std::optional<uint16_t> size_of(uint64_t form, const DwarfEntryKinds::Format& format) {
  const uint16_t offset = format.is_64 ? 8 : 4;
  switch (form) {
    case DW_FORM_flag_present:
    case DW_FORM_implicit_const:
      return 0;
    case DW_FORM_data1:
    case DW_FORM_ref1:
    case DW_FORM_flag:
    case DW_FORM_strx1:
    case DW_FORM_addrx1:
      return 1;
    case DW_FORM_data2:
    case DW_FORM_ref2:
    case DW_FORM_strx2:
    case DW_FORM_addrx2:
      return 2;
    case DW_FORM_strx3:
    case DW_FORM_addrx3:
      return 3;
    case DW_FORM_data4:
    case DW_FORM_ref4:
    case DW_FORM_strx4:
    case DW_FORM_addrx4:
    case DW_FORM_ref_sup4:
      return 4;
    case DW_FORM_data8:
    case DW_FORM_ref8:
    case DW_FORM_ref_sup8:
    case DW_FORM_ref_sig8:
    case DW_FORM_addr:
      return 8;
    case DW_FORM_data16:
      return 16;
    case DW_FORM_strp:
    case DW_FORM_line_strp:
    case DW_FORM_strp_sup:
    case DW_FORM_sec_offset:
    case DW_FORM_GNU_ref_alt:
    case DW_FORM_GNU_strp_alt:
      return offset;
    case DW_FORM_ref_addr:
      return format.version == 2 ? 8 : offset;
    default:
      return std::nullopt;
  }
}

// Of those of any length. Nothing if we do not know the form.
std::optional<DwarfEntryKinds::Length> length_of(uint64_t form) {
  using Length = DwarfEntryKinds::Length;
  switch (form) {
    case DW_FORM_udata:
    case DW_FORM_ref_udata:
    case DW_FORM_strx:
    case DW_FORM_addrx:
    case DW_FORM_loclistx:
    case DW_FORM_rnglistx:
    case DW_FORM_GNU_addr_index:
    case DW_FORM_GNU_str_index:
      return Length::leb;
    case DW_FORM_sdata:
      return Length::signed_leb;
    case DW_FORM_string:
      return Length::string;
    case DW_FORM_block1:
      return Length::block1;
    case DW_FORM_block2:
      return Length::block2;
    case DW_FORM_block4:
      return Length::block4;
    case DW_FORM_block:
    case DW_FORM_exprloc:
      return Length::block;
    case DW_FORM_indirect:
      return Length::indirect;
    default:
      return std::nullopt;
  }
}

// What a value of a form is.
DwarfValue::Class class_of(uint64_t form) {
  switch (form) {
    case DW_FORM_addr:
      return DwarfValue::Class::address;
    case DW_FORM_addrx:
    case DW_FORM_addrx1:
    case DW_FORM_addrx2:
    case DW_FORM_addrx3:
    case DW_FORM_addrx4:
      return DwarfValue::Class::address_index;
    case DW_FORM_rnglistx:
      return DwarfValue::Class::list_index;
    case DW_FORM_data1:
    case DW_FORM_data2:
    case DW_FORM_data4:
    case DW_FORM_data8:
    case DW_FORM_udata:
    case DW_FORM_sdata:
    case DW_FORM_implicit_const:
    case DW_FORM_sec_offset:
    case DW_FORM_ref1:
    case DW_FORM_ref2:
    case DW_FORM_ref4:
    case DW_FORM_ref8:
    case DW_FORM_ref_udata:
      return DwarfValue::Class::number;
    default:
      return DwarfValue::Class::none;
  }
}

uint64_t little_endian(std::string_view bytes) {
  uint64_t value = 0;
  if (!bytes.empty()) std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

}  // namespace

std::optional<DwarfEntryKinds> DwarfEntryKinds::read(std::string_view table, const Format& format) {
  DwarfEntryKinds result;
  result.format_ = format;
  ByteReader in(table);
  while (const uint64_t number = in.uleb()) {
    if (number > kMaxKinds) return std::nullopt;
    if (number >= result.kinds_.size()) result.kinds_.resize(number + 1);
    Kind& kind = result.kinds_[number];
    if (kind.tag) return std::nullopt;
    const uint64_t tag = in.uleb();
    kind.tag = static_cast<uint16_t>(std::min<uint64_t>(tag, DW_TAG_hi_user));
    kind.role = role_of(tag);
    kind.has_children = in.get<uint8_t>() != 0;
    kind.steps = static_cast<uint32_t>(result.steps_.size());
    for (unsigned seen = 0; !in.failed();) {
      const uint64_t attribute = in.uleb(), form = in.uleb();
      const int64_t constant = form == DW_FORM_implicit_const ? in.sleb() : 0;
      if (attribute == 0 && form == 0) break;
      if (!result.add(kind, attribute, form, constant, seen)) return std::nullopt;
    }
    kind.steps_end = static_cast<uint32_t>(result.steps_.size());
    kind.size = result.size_of_all(kind);
    if (in.failed() || kind.tag == 0) return std::nullopt;
  }
  if (in.failed()) return std::nullopt;
  result.kinds_.shrink_to_fit();
  result.steps_.shrink_to_fit();
  return result;
}

bool DwarfEntryKinds::add(const Kind& kind, uint64_t attribute, uint64_t form, int64_t constant,
                          unsigned& seen) {
  Step step;
  // Of an attribute that is there twice, the first counts.
  if (const What what = what_of(attribute, kind.role, kind.has_children); !(seen & 1u << what)) {
    step.what = what;
    step.value = class_of(form);
    if (what) seen |= 1u << what;
  }
  if (const auto size = size_of(form, format_)) {
    const bool is_first = steps_.size() == kind.steps;
    if (step.what && form == DW_FORM_implicit_const) {
      step.length = Length::constant;
      step.size = static_cast<uint16_t>(constants_.size());
      constants_.push_back(constant);
    } else if (step.what || *size) {
      if (!step.what && !is_first && steps_.back().length == Length::fixed && !steps_.back().what &&
          steps_.back().size < kMaxFixed) {
        steps_.back().size = static_cast<uint16_t>(steps_.back().size + *size);
        return true;
      }
      step.size = *size;
    } else {
      return true;
    }
  } else if (const auto length = length_of(form)) {
    step.length = *length;
  } else {
    return false;
  }
  steps_.push_back(step);
  return steps_.size() <= kMaxSteps && constants_.size() <= kMaxConstants;
}

// Of what each entry of this kind has, if that is the same in all and none tells where to go on.
uint32_t DwarfEntryKinds::size_of_all(const Kind& kind) const {
  size_t sum = 0;
  for (uint32_t i = kind.steps; i < kind.steps_end; ++i) {
    const Step& step = steps_[i];
    if (step.what == kSibling || (step.length != Length::fixed && step.length != Length::constant))
      return kVaries;
    if (step.length == Length::fixed) sum += step.size;
  }
  return static_cast<uint32_t>(std::min<size_t>(sum, kVaries));
}

size_t DwarfEntryKinds::bytes() const {
  return kinds_.capacity() * sizeof kinds_[0] + steps_.capacity() * sizeof steps_[0] +
         constants_.capacity() * sizeof constants_[0];
}

// Steps over a value, or reads it.
inline uint64_t DwarfEntryKinds::take(const Step& step, ByteReader& in) const {
  switch (step.length) {
    case Length::fixed:
      return step.what ? little_endian(in.bytes(step.size)) : (in.bytes(step.size), 0);
    case Length::leb:
      return in.uleb();
    case Length::signed_leb:
      return static_cast<uint64_t>(in.sleb());
    case Length::string:
      (void)in.c_string();
      return 0;
    case Length::block1:
      (void)in.bytes(in.get<uint8_t>());
      return 0;
    case Length::block2:
      (void)in.bytes(in.get<uint16_t>());
      return 0;
    case Length::block4:
      (void)in.bytes(in.get<uint32_t>());
      return 0;
    case Length::block:
      (void)in.bytes(in.uleb());
      return 0;
    case Length::constant:
      return static_cast<uint64_t>(constants_[step.size]);
    case Length::indirect: {
      const uint64_t form = in.uleb();
      Step there;
      if (const auto size = size_of(form, format_)) {
        there.size = *size;
      } else if (const auto length = length_of(form); length && *length != Length::indirect) {
        there.length = *length;
      } else {
        (void)in.bytes(in.left() + 1);  // cannot be stepped over
        return 0;
      }
      return take(there, in);
    }
  }
  return 0;
}

void DwarfEntries::go_on() {
  const bool entered = std::exchange(entered_, false);
  if (!std::exchange(at_entry_, false) || !has_children_) return;
  if (entered)
    ++depth_;
  else
    pass(sibling_of(entry_[DwarfEntryKinds::kSibling], at_));
}

// Where an entry says that the next one beside it is, if that is behind it: broken files have loops.
uint64_t DwarfEntries::sibling_of(const DwarfValue& value, uint64_t behind) const {
  if (value.kind != DwarfValue::Class::number || value.number > end_ - begin_) return 0;
  const uint64_t sibling = begin_ + value.number;
  return sibling > behind ? sibling : 0;
}

// What is below the entry that was read is stepped over.
void DwarfEntries::pass(uint64_t sibling) {
  if (sibling) {
    at_ = sibling;
    return;
  }
  ++depth_;
  hidden_ = std::min(hidden_, depth_);
}

// Most entries: of one of the first 127 kinds, and as long as all of their kind. Stops before any other.
void DwarfEntries::skip_hidden(const DwarfEntryKinds& kinds, std::string_view info) {
  const auto* at = reinterpret_cast<const uint8_t*>(info.data()) + at_;
  const auto* const end = reinterpret_cast<const uint8_t*>(info.data()) + info.size();
  const size_t count = std::min<size_t>(kinds.kinds_.size(), 0x80);
  size_t depth = depth_;
  while (at < end) {
    if (*at == 0) {
      if (depth == hidden_) break;
      --depth;
      ++at;
      continue;
    }
    if (*at >= count) break;
    const DwarfEntryKinds::Kind& kind = kinds.kinds_[*at];
    if (kind.size >= static_cast<size_t>(end - at)) break;
    at += 1 + kind.size;
    depth += kind.has_children;
  }
  at_ = static_cast<uint64_t>(at - reinterpret_cast<const uint8_t*>(info.data()));
  depth_ = depth;
}

bool DwarfEntries::next(const DwarfEntryKinds& kinds, std::string_view info, uint64_t to) {
  if (done_) return false;
  go_on();
  const bool is_last = to >= end_;
  to = std::min<uint64_t>({to, end_, info.size()});
  while (at_ < to) {
    if (depth_ >= hidden_) skip_hidden(kinds, info.substr(0, to));
    ByteReader in(info.substr(at_, to - at_));
    const uint64_t number = in.uleb();
    if (number == 0 && !in.failed()) {
      at_ += in.offset();
      if (depth_ <= floor_) {
        done_ = true;
        return false;
      }
      --depth_;
      if (depth_ < hidden_) hidden_ = kNever;
      continue;
    }
    if (number >= kinds.kinds_.size() || kinds.kinds_[number].tag == 0) {
      done_ = !in.failed() || is_last;
      return false;
    }
    const DwarfEntryKinds::Kind& kind = kinds.kinds_[number];
    const bool is_hidden = depth_ >= hidden_ || kind.role == DwarfEntryKinds::Role::other;
    if (is_hidden && kind.size <= in.left()) {
      at_ += in.offset() + kind.size;
      if (kind.has_children) pass(0);
      continue;
    }
    if (!is_hidden) entry_ = {at_, kind.tag, kind.role, {}};
    DwarfValue sibling;
    for (uint32_t i = kind.steps; i < kind.steps_end; ++i) {
      const DwarfEntryKinds::Step& step = kinds.steps_[i];
      const uint64_t taken = kinds.take(step, in);
      if (step.what == DwarfEntryKinds::kSibling) sibling = {step.value, taken};
      if (step.what && !is_hidden) entry_.values[step.what] = {step.value, taken};
    }
    if (in.failed()) break;
    at_ += in.offset();
    if (!is_hidden) {
      at_entry_ = true;
      has_children_ = kind.has_children;
      return true;
    }
    if (kind.has_children) pass(sibling_of(sibling, at_));
  }
  done_ = is_last;
  return false;
}

}  // namespace looptrace
