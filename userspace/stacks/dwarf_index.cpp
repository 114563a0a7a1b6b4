// SPDX-License-Identifier: Apache-2.0
#include "stacks/dwarf_index.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

namespace looptrace {
namespace {

// libdw keeps what it has decoded of units until it is closed.
constexpr size_t kRowsBeforeReopening = 8u << 10;
constexpr size_t kMaxPainted = 1u << 20;

// A unit's code and the innermost inlined function at each of its addresses.
class Canvas {
 public:
  void paint(uint64_t low, uint64_t high, uint32_t colour) {
    if (low >= high || parts_.size() > kMaxPainted) return;
    const uint32_t beyond = at(high);
    parts_.erase(parts_.lower_bound(low), parts_.lower_bound(high));
    parts_[low] = colour;
    parts_.try_emplace(high, beyond);
  }

  uint32_t at(uint64_t address) const {
    const auto after = parts_.upper_bound(address);
    return after == parts_.begin() ? 0 : std::prev(after)->second;
  }

  const std::map<uint64_t, uint32_t>& parts() const { return parts_; }

 private:
  std::map<uint64_t, uint32_t> parts_;  // each up to the next
};

class UnitIndexer {
 public:
  UnitIndexer(Dwarf_Die unit, SourceIndexBuilder& builder, std::unordered_map<const void*, uint32_t>& names)
      : unit_(unit), builder_(builder), names_(names) {}

  /// How many rows its lines have.
  size_t read() {
    if (dwarf_getsrcfiles(&unit_, &files_, &file_count_) != 0) file_count_ = 0;
    if (dwarf_getsrclines(&unit_, &lines_, &line_count_) != 0) line_count_ = 0;
    walk(&unit_, 0, 0);
    return line_count_;
  }

  /// False if there is no room for it.
  bool add(uint64_t low, uint64_t high) {
    size_t next = first_line_after(low);
    Place place = next ? place_of(next - 1) : Place{};
    auto part = canvas_.parts().upper_bound(low);
    uint32_t colour = canvas_.at(low);
    builder_.begin();
    for (uint64_t at = low; at < high;) {
      if (!builder_.add(at, place.file, place.line, colour)) return false;
      const uint64_t line_at = next < line_count_ ? address_of(next) : high;
      const uint64_t part_at = part != canvas_.parts().end() ? part->first : high;
      at = std::min(line_at, part_at);
      for (; next < line_count_ && address_of(next) == at; ++next) place = place_of(next);
      if (part_at == at && part != canvas_.parts().end()) colour = part++->second;
    }
    return builder_.add(high, 0, 0, 0);
  }

 private:
  struct Place {
    uint32_t file = 0, line = 0;
  };

  Dwarf_Addr address_of(size_t line) const {
    Dwarf_Addr address = 0;
    dwarf_lineaddr(dwarf_onesrcline(lines_, line), &address);
    return address;
  }

  // libdw has them sorted by address.
  size_t first_line_after(uint64_t address) const {
    size_t low = 0, high = line_count_;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (address_of(middle) > address)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

  Place place_of(size_t number) {
    Dwarf_Line* line = dwarf_onesrcline(lines_, number);
    bool end = true;
    if (dwarf_lineendsequence(line, &end) != 0 || end) return {};
    int value = 0;
    dwarf_lineno(line, &value);
    return {file_text(dwarf_linesrc(line, nullptr, nullptr)), static_cast<uint32_t>(std::max(value, 0))};
  }

  uint32_t file_text(const char* path) {
    if (!path) return 0;
    const auto [it, added] = paths_.try_emplace(path, 0);
    if (added) it->second = builder_.text(path);
    return it->second;
  }

  uint32_t name_of(Dwarf_Die* die) {
    Dwarf_Attribute attribute;
    Dwarf_Die origin;
    if (!dwarf_formref_die(dwarf_attr(die, DW_AT_abstract_origin, &attribute), &origin))
      return builder_.text(dwarf_function_name(die));
    const auto [it, added] = names_.try_emplace(origin.addr, 0);
    if (added) it->second = builder_.text(dwarf_function_name(die));
    return it->second;
  }

  uint32_t inlined(Dwarf_Die* die, uint32_t outer) {
    uint32_t file = 0, line = 0;
    Dwarf_Attribute attribute;
    Dwarf_Word value;
    if (dwarf_formudata(dwarf_attr(die, DW_AT_call_file, &attribute), &value) == 0 && value < file_count_)
      file = file_text(dwarf_filesrc(files_, value, nullptr, nullptr));
    if (dwarf_formudata(dwarf_attr(die, DW_AT_call_line, &attribute), &value) == 0 && value < 1u << 30)
      line = static_cast<uint32_t>(value);
    return builder_.inlined({name_of(die), file, line, outer});
  }

  // Inner code comes after what it is in, and is painted over it.
  void walk(Dwarf_Die* parent, uint32_t outer, int depth) {
    Dwarf_Die die;
    if (depth > kMaxDwarfDepth || dwarf_child(parent, &die) != 0) return;
    do {
      if (++seen_ > kMaxDwarfDies) return;
      const int tag = dwarf_tag(&die);
      if (is_dwarf_container(tag)) walk(&die, 0, depth + 1);
      if (!is_dwarf_code(tag)) continue;
      const bool bare = !dwarf_hasattr(&die, DW_AT_low_pc) && !dwarf_hasattr(&die, DW_AT_ranges);
      if (bare && tag != DW_TAG_lexical_block) continue;
      const uint32_t colour = tag == DW_TAG_subprogram           ? 0
                              : tag == DW_TAG_inlined_subroutine ? inlined(&die, outer)
                                                                 : outer;
      Dwarf_Addr base, low, high;
      ptrdiff_t at = 0;
      if (tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine)
        while ((at = dwarf_ranges(&die, at, &base, &low, &high)) > 0) canvas_.paint(low, high, colour);
      walk(&die, colour, depth + 1);
    } while (dwarf_siblingof(&die, &die) == 0);
  }

  Dwarf_Die unit_;
  SourceIndexBuilder& builder_;
  std::unordered_map<const void*, uint32_t>& names_;  // of abstract functions
  std::unordered_map<const char*, uint32_t> paths_;
  Dwarf_Lines* lines_ = nullptr;
  Dwarf_Files* files_ = nullptr;
  size_t line_count_ = 0, file_count_ = 0, seen_ = 0;
  Canvas canvas_;
};

// By unit and address, and no address twice: of a broken file's the first counts.
std::vector<DwarfUnitRange> by_unit(const std::vector<DwarfUnitRange>& ranges) {
  std::vector<DwarfUnitRange> result;
  uint64_t end = 0;
  for (DwarfUnitRange range : ranges) {
    range.low = std::max(range.low, end);
    if (range.low >= range.high) continue;
    end = range.high;
    result.push_back(range);
  }
  std::stable_sort(result.begin(), result.end(), [](auto& a, auto& b) { return a.unit < b.unit; });
  return result;
}

}  // namespace

std::optional<SourceIndex> index_sources(Elf* elf, Dwarf* shared, const std::vector<DwarfUnitRange>& ranges,
                                         const std::stop_token& stop) {
  if (ranges.empty()) return std::nullopt;
  SourceIndexBuilder builder(ranges.front().low);
  std::unordered_map<const void*, uint32_t> names;
  DwarfPtr dwarf;
  size_t rows = 0;
  const std::vector<DwarfUnitRange> parts = by_unit(ranges);
  for (auto part = parts.begin(); part != parts.end();) {
    if (stop.stop_requested()) return std::nullopt;
    if (!dwarf || rows > kRowsBeforeReopening) {
      dwarf.reset();  // before another is made of the same file
      dwarf.reset(dwarf_begin_elf(elf, DWARF_C_READ, nullptr));
      if (!dwarf) return std::nullopt;
      if (shared) dwarf_setalt(dwarf.get(), shared);
      rows = 0;
    }
    Dwarf_Die unit;
    if (!dwarf_offdie(dwarf.get(), part->unit, &unit)) return std::nullopt;
    UnitIndexer indexer(unit, builder, names);
    rows += indexer.read();
    for (const Dwarf_Off now = part->unit; part != parts.end() && part->unit == now; ++part)
      if (!indexer.add(part->low, part->high)) return std::nullopt;
  }
  return builder.finish();
}

}  // namespace looptrace
