// SPDX-License-Identifier: Apache-2.0
#include "stacks/dwarf_lines.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <libelf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/free_with.h"
#include "stacks/dwarf_image.h"
#include "stacks/dwarf_line_table.h"
#include "stacks/elf_file.h"
#include "stacks/internal_name.h"
#include "stacks/separate_debug.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace {

// Bounds on a walk through one unit's tree: broken files have loops.
constexpr size_t kMaxDies = 1u << 20;
constexpr int kMaxDepth = 128;
constexpr size_t kMaxInlined = 64;
constexpr size_t kMaxUnitRanges = 4u << 20;
constexpr size_t kMaxUnits = 1u << 17;  // for each libdw keeps something
// An inlined function's abstract one, and what that is specified by; broken files have loops.
constexpr int kMaxOrigins = 16;
// Of a unit's header, and of its first entry, which has its name and ranges.
constexpr uint64_t kMaxUnitHeader = 64, kMaxUnitEntry = 16u << 10;
constexpr size_t kUnitsAtOnce = 128;
// What stays of units in use.
constexpr size_t kMaxFilled = 8u << 20;
// And of tables of lines.
constexpr size_t kMaxLines = 4u << 20;
// More is not read to name one frame: a larger unit's inlined functions, or lines, are not looked for.
constexpr uint64_t kMaxPart = 32u << 20;

constexpr std::initializer_list<DwarfImage::Part> kAllParts = {DwarfImage::kInfo, DwarfImage::kLine};

using DwarfPtr = std::unique_ptr<Dwarf, FreeWith<dwarf_end>>;

// A scope that may hold subprograms but has no code range of its own.
bool is_container(int tag) {
  return tag == DW_TAG_namespace || tag == DW_TAG_module || tag == DW_TAG_structure_type ||
         tag == DW_TAG_class_type || tag == DW_TAG_union_type || tag == DW_TAG_enumeration_type;
}

bool is_code(int tag) {
  return tag == DW_TAG_subprogram || tag == DW_TAG_lexical_block || tag == DW_TAG_inlined_subroutine ||
         tag == DW_TAG_try_block || tag == DW_TAG_catch_block;
}

// Finds the way from a unit down to the innermost code that holds an address.
class Descent {
 public:
  explicit Descent(uint64_t address) : address_(address) {}

  /// Outermost first: the subprogram, then the subroutines inlined at the address.
  std::vector<Dwarf_Die> run(Dwarf_Die* unit) {
    walk(unit, 0);
    return std::move(path_);
  }

 private:
  // True once the address was found beneath `parent`: siblings need not be looked at.
  bool walk(Dwarf_Die* parent, int depth) {
    Dwarf_Die die;
    if (depth > kMaxDepth || dwarf_child(parent, &die) != 0) return false;
    do {
      if (++seen_ > kMaxDies) return true;
      const int tag = dwarf_tag(&die);
      if (is_code(tag)) {
        if (dwarf_haspc(&die, address_) > 0) {
          if (tag == DW_TAG_subprogram) path_.clear();
          if (tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine) {
            if (path_.size() < kMaxInlined) path_.push_back(die);
          }
          walk(&die, depth + 1);
          return true;
        }
        // Nested functions and blocks without a range of their own.
        if (tag == DW_TAG_lexical_block && !dwarf_hasattr(&die, DW_AT_low_pc) &&
            !dwarf_hasattr(&die, DW_AT_ranges) && walk(&die, depth + 1))
          return true;
      } else if (is_container(tag) && walk(&die, depth + 1)) {
        return true;
      }
    } while (dwarf_siblingof(&die, &die) == 0);
    return false;
  }

  uint64_t address_;
  size_t seen_ = 0;
  std::vector<Dwarf_Die> path_;
};

}  // namespace

struct DwarfLines::Impl {
  struct Unit {
    uint64_t begin, end;
    Dwarf_Off die;
  };
  struct UnitLines {
    std::string bytes;
    std::optional<DwarfLineTable> table;  // nothing where it is broken
  };
  struct UnitRange {
    uint64_t low, high;
    uint32_t unit;
  };

  std::unique_ptr<ElfFile> shared_file;  // what dwz took out of this file and others: it is read whole
  std::unique_ptr<DwarfImage> shared, image;
  DwarfPtr shared_dwarf, dwarf;
  std::vector<Unit> units;                        // by begin
  std::vector<UnitRange> ranges;                  // by low
  std::unordered_map<uint64_t, UnitLines> lines;  // by their place
  size_t line_bytes = 0;
  uint64_t shared_read = 0, lines_read = 0, units_from = 0, next_unit = 0;
  bool units_read = false, ready = false, failed = false;

  void step();
  /// In bytes that take as long to unpack.
  uint64_t work() const {
    constexpr uint64_t kUnit = 1024;
    return image->read_bytes() + (shared ? shared->read_bytes() : 0) + units.size() * kUnit;
  }
  bool read_shared();
  bool begin();
  void read_units();
  void read_lines();
  void finish();
  void drop_parts() {
    for (const auto part : kAllParts) image->drop(part);
  }
  void drop_if_too_much() {
    if (image->filled() > kMaxFilled) drop_parts();
  }
  bool need_unit(const Unit& unit);
  bool has_unit(const Unit& unit) const {
    return image->has(DwarfImage::kInfo, unit.begin, unit.end - unit.begin);
  }
  bool need_entry(Dwarf_Die& die);
  const DwarfLineTable* lines_of(Dwarf_Die& unit);
  /// What is beneath `die` is there, if it is not too large.
  const Unit* find_unit(uint64_t address, Dwarf_Die& die);
  std::string function_name(Dwarf_Die die);
};

// True when all of it is there.
bool DwarfLines::Impl::read_shared() {
  if (!shared->read_on()) return false;
  uint64_t before = 0;
  for (const auto part : kAllParts) {
    const uint64_t size = shared->size(part);
    if (shared_read < before + size) {
      const uint64_t from = shared_read - before, piece = std::min(DwarfImage::kPiece, size - from);
      failed |= !shared->need(part, from, piece);
      shared_read += piece;
      return false;
    }
    before += size;
  }
  return true;
}

bool DwarfLines::Impl::begin() {
  dwarf.reset(dwarf_begin_elf(image->elf(), DWARF_C_READ, nullptr));
  if (!dwarf) return false;
  if (!shared) return true;
  shared_dwarf.reset(dwarf_begin_elf(shared->elf(), DWARF_C_READ, nullptr));
  if (!shared_dwarf) return false;
  dwarf_setalt(dwarf.get(), shared_dwarf.get());
  return true;
}

// All units' ranges: .debug_aranges is absent or incomplete with several compilers.
void DwarfLines::Impl::read_units() {
  drop_if_too_much();
  // Which of a piece's pages units begin in is not worth asking where all are unpacked anyway.
  const bool packed = image->is_packed(DwarfImage::kInfo);
  if (packed && next_unit >= units_from) {
    if (next_unit - units_from > kMaxFilled) units_from = next_unit;  // the rest would not be kept
    (void)image->need(DwarfImage::kInfo, units_from, DwarfImage::kPiece);
    units_from = std::min(units_from + DwarfImage::kPiece, image->size(DwarfImage::kInfo));
  }
  const bool is_last = !packed || units_from == image->size(DwarfImage::kInfo);
  const size_t enough = units.size() + kUnitsAtOnce;
  while (ranges.size() < kMaxUnitRanges && units.size() < std::min(enough, kMaxUnits) &&
         (is_last || next_unit < units_from)) {
    Unit unit{next_unit, 0, 0};
    size_t header_size = 0;
    if (!image->need(DwarfImage::kInfo, unit.begin, kMaxUnitHeader) ||
        dwarf_next_unit(dwarf.get(), unit.begin, &unit.end, &header_size, nullptr, nullptr, nullptr, nullptr,
                        nullptr, nullptr) != 0 ||
        unit.end <= unit.begin ||
        !image->need(DwarfImage::kInfo, unit.begin, std::min(unit.end - unit.begin, kMaxUnitEntry))) {
      units_read = true;
      return;
    }
    next_unit = unit.end;
    unit.die = unit.begin + header_size;
    const auto number = static_cast<uint32_t>(units.size());
    units.push_back(unit);
    Dwarf_Die die;
    if (!dwarf_offdie(dwarf.get(), unit.die, &die)) continue;
    // A skeleton has the lines of a unit whose functions are in a .dwo file, which is not read.
    if (const int tag = dwarf_tag(&die); tag != DW_TAG_compile_unit && tag != DW_TAG_skeleton_unit) continue;
    Dwarf_Addr base, low, high;
    ptrdiff_t at = 0;
    while ((at = dwarf_ranges(&die, at, &base, &low, &high)) > 0 && ranges.size() < kMaxUnitRanges)
      if (low < high) ranges.push_back({low, high, number});
  }
  units_read = ranges.size() >= kMaxUnitRanges || units.size() >= kMaxUnits;
}

void DwarfLines::Impl::read_lines() {
  const uint64_t size = image->size(DwarfImage::kLine);
  const uint64_t piece = std::min(DwarfImage::kPiece, size - lines_read);
  (void)image->need(DwarfImage::kLine, lines_read, piece);
  drop_if_too_much();
  lines_read += piece;
}

void DwarfLines::Impl::finish() {
  drop_if_too_much();
  std::sort(ranges.begin(), ranges.end(), [](auto& a, auto& b) { return a.low < b.low; });
  ranges.shrink_to_fit();
  units.shrink_to_fit();
  ready = true;
}

bool DwarfLines::Impl::need_unit(const Unit& unit) {
  const uint64_t size = unit.end - unit.begin;
  return size <= kMaxPart && image->need(DwarfImage::kInfo, unit.begin, size);
}

// The unit that holds `die`, which may be another one than that which led to it.
bool DwarfLines::Impl::need_entry(Dwarf_Die& die) {
  if (dwarf_cu_getdwarf(die.cu) != dwarf.get()) return true;
  const Dwarf_Off at = dwarf_dieoffset(&die);
  const auto after = std::upper_bound(units.begin(), units.end(), at,
                                      [](Dwarf_Off at, const Unit& unit) { return at < unit.begin; });
  return after != units.begin() && need_unit(*std::prev(after));
}

// Those that were asked for are kept: what they are in has to be unpacked again after a while.
const DwarfLineTable* DwarfLines::Impl::lines_of(Dwarf_Die& unit) {
  Dwarf_Attribute attribute;
  Dwarf_Word at = 0;
  if (dwarf_formudata(dwarf_attr(&unit, DW_AT_stmt_list, &attribute), &at) != 0) return nullptr;
  if (const auto known = lines.find(at); known != lines.end())
    return known->second.table ? &*known->second.table : nullptr;
  const std::string_view all = image->section(".debug_line");
  uint32_t length = 0;
  uint64_t long_length = 0;
  constexpr uint64_t kLengths = sizeof length + sizeof long_length;
  if (at > all.size() || all.size() - at < kLengths || !image->need(DwarfImage::kLine, at, kLengths))
    return nullptr;
  std::memcpy(&length, &all[at], sizeof length);
  std::memcpy(&long_length, &all[at + sizeof length], sizeof long_length);
  const uint64_t rest = std::min(length == 0xffffffff ? long_length : length, all.size() - at - kLengths);
  if (rest > kMaxPart || !image->need(DwarfImage::kLine, at, kLengths + rest)) return nullptr;
  if (line_bytes > kMaxLines) lines.clear(), line_bytes = 0;
  UnitLines& made = lines[at];
  made.bytes = all.substr(at, kLengths + rest);
  const char* const directory = dwarf_formstring(dwarf_attr(&unit, DW_AT_comp_dir, &attribute));
  made.table =
      DwarfLineTable::read(made.bytes, {image->section(".debug_str"), image->section(".debug_line_str")},
                           directory ? directory : "");
  if (!made.table) made.bytes = {};
  line_bytes += sizeof(UnitLines) + made.bytes.capacity() + (made.table ? made.table->bytes() : 0);
  return made.table ? &*made.table : nullptr;
}

const DwarfLines::Impl::Unit* DwarfLines::Impl::find_unit(uint64_t address, Dwarf_Die& die) {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), address,
                             [](uint64_t at, const UnitRange& range) { return at < range.low; });
  // Ranges of a broken file may overlap; a few steps back are enough for sound ones.
  for (int i = 0; i < 8 && it != ranges.begin(); ++i) {
    --it;
    if (address >= it->high) continue;
    const Unit& found = units[it->unit];
    // Not behind positions(): a large unit whose frames are asked for by turns is to stay.
    if (!has_unit(found)) drop_if_too_much();
    (void)need_unit(found);
    if (!image->need(DwarfImage::kInfo, found.begin, std::min(found.end - found.begin, kMaxUnitEntry)) ||
        !dwarf_offdie(dwarf.get(), found.die, &die))
      return nullptr;
    return &found;
  }
  return nullptr;
}

// As dwarf_attr_integrate() finds it, which does not ask for the units that it follows references to.
std::string DwarfLines::Impl::function_name(Dwarf_Die die) {
  std::string plain;
  for (int i = 0; i < kMaxOrigins; ++i) {
    Dwarf_Attribute attribute;
    for (const unsigned kind : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
      if (!dwarf_attr(&die, kind, &attribute)) continue;
      if (const char* name = dwarf_formstring(&attribute)) return demangle(name);
    }
    if (plain.empty() && dwarf_attr(&die, DW_AT_name, &attribute))
      if (const char* name = dwarf_formstring(&attribute)) plain = without_internal_prefix(name);
    Dwarf_Die origin;
    if ((!dwarf_attr(&die, DW_AT_abstract_origin, &attribute) &&
         !dwarf_attr(&die, DW_AT_specification, &attribute)) ||
        !dwarf_formref_die(&attribute, &origin) || !need_entry(origin))
      break;
    die = origin;
  }
  return plain;
}

DwarfLines::DwarfLines(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DwarfLines::~DwarfLines() = default;

std::unique_ptr<DwarfLines> DwarfLines::open(const ElfFile& file, const std::string& root) {
  auto impl = std::make_unique<Impl>();
  impl->image = DwarfImage::of(file);
  if (!impl->image) return nullptr;
  if (has_supplementary(file)) {
    impl->shared_file = find_supplementary(file, root);
    if (impl->shared_file) impl->shared = DwarfImage::of(*impl->shared_file);
    if (!impl->shared) return nullptr;
  }
  return std::unique_ptr<DwarfLines>(new DwarfLines(std::move(impl)));
}

void DwarfLines::Impl::step() {
  if (shared && !read_shared()) return;
  if (!image->read_on()) return;
  if (!dwarf) {
    failed = image->failed() || !begin();
  } else if (!units_read) {
    read_units();
  } else if (image->is_packed(DwarfImage::kLine) && lines_read < image->size(DwarfImage::kLine)) {
    read_lines();
  } else {
    finish();
  }
}

bool DwarfLines::read_on() {
  for (const uint64_t before = impl_->work(); !all_read(); impl_->step())
    if (impl_->work() - before >= DwarfImage::kPiece) return false;
  return true;
}

bool DwarfLines::all_read() const { return impl_->ready || impl_->failed; }

bool DwarfLines::read_all() {
  while (!read_on()) {
  }
  return impl_->ready;
}

std::vector<ElfObject::Position> DwarfLines::positions(uint64_t address) {
  std::vector<ElfObject::Position> result;
  Dwarf_Die unit;
  const Impl::Unit* const found = impl_->find_unit(address, unit);
  if (!found) return result;

  ElfObject::Position here;
  const DwarfLineTable* const lines = impl_->lines_of(unit);
  if (const auto place = lines ? lines->find(address) : std::nullopt) {
    here.file = lines->file(place->file);
    here.line = place->line;
  }

  // From the innermost outwards: each inlined function's call site is where its caller is.
  std::vector<Dwarf_Die> path;
  if (impl_->has_unit(*found)) path = Descent(address).run(&unit);
  for (auto die = path.rbegin(); die != path.rend(); ++die) {
    if (dwarf_tag(&*die) != DW_TAG_inlined_subroutine) continue;
    here.function = impl_->function_name(*die);
    result.push_back(std::move(here));
    here = {};
    Dwarf_Attribute attribute;
    Dwarf_Word value;
    if (lines && dwarf_formudata(dwarf_attr(&*die, DW_AT_call_file, &attribute), &value) == 0)
      here.file = lines->file(value);
    if (dwarf_formudata(dwarf_attr(&*die, DW_AT_call_line, &attribute), &value) == 0 && value < 1u << 30)
      here.line = static_cast<int>(value);
  }
  if (result.empty() && here.file.empty() && here.line == 0) return result;
  result.push_back(std::move(here));
  return result;
}

void DwarfLines::drop_units() { impl_->drop_parts(); }

size_t DwarfLines::bytes() const {
  // What libdw makes of a unit.
  constexpr size_t kUnit = 1024;
  size_t sum = impl_->image->bytes() + impl_->line_bytes +
               impl_->ranges.capacity() * sizeof(Impl::UnitRange) +
               impl_->units.size() * (kUnit + sizeof(Impl::Unit));
  if (impl_->shared) sum += impl_->shared->bytes();
  return sum;
}

}  // namespace looptrace
