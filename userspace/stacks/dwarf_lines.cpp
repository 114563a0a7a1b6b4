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
#include "stacks/dwarf_functions.h"
#include "stacks/dwarf_image.h"
#include "stacks/dwarf_line_table.h"
#include "stacks/elf_file.h"
#include "stacks/internal_name.h"
#include "stacks/separate_debug.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace {

constexpr size_t kMaxUnitRanges = 4u << 20;
constexpr size_t kMaxUnits = 1u << 17;  // for each libdw keeps something
// An inlined function's abstract one, and what that is specified by; broken files have loops.
constexpr int kMaxOrigins = 16;
// Of a unit's header, and of an entry: a unit's first has its name and ranges.
constexpr uint64_t kMaxUnitHeader = 64, kMaxEntry = 16u << 10;
// What stays of units in use.
constexpr size_t kMaxFilled = 8u << 20;
// And of tables of lines, and of functions.
constexpr size_t kMaxLines = 4u << 20, kMaxFunctions = 4u << 20;
// What takes longer to be looked through is, ahead: smaller ones when a frame asks, in a quarter of a
// millisecond each.
constexpr uint64_t kLargeUnit = 256u << 10, kLargeTable = 96u << 10;
// But no more than this: in 40 ms, and what tables take stays. The largest first, for which a frame would
// wait longest.
constexpr uint64_t kMaxUnitsAhead = 32u << 20, kMaxTablesAhead = 2u << 20;
// More is not read to name one frame: a larger unit's inlined functions, or lines, are not looked for.
constexpr uint64_t kMaxPart = 32u << 20;

constexpr std::initializer_list<DwarfImage::Part> kAllParts = {DwarfImage::kInfo, DwarfImage::kLine};

using DwarfPtr = std::unique_ptr<Dwarf, FreeWith<dwarf_end>>;

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
  struct Large {
    uint64_t size;
    uint32_t unit;
  };
  struct UnitRange {
    uint64_t low, high;
    uint32_t unit;
  };

  std::unique_ptr<ElfFile> shared_file;  // what dwz took out of this file and others: it is read whole
  std::unique_ptr<DwarfImage> shared, image;
  DwarfPtr shared_dwarf, dwarf;
  std::vector<Unit> units;                                  // by begin
  std::vector<UnitRange> ranges;                            // by low
  std::unordered_map<uint64_t, UnitLines> lines;            // by their place
  std::vector<std::pair<uint64_t, uint32_t>> table_places;  // of lines, each with a unit that has it
  std::vector<Large> large_units, large_tables;             // to be looked through ahead, from the last on
  std::unordered_map<uint32_t, DwarfFunctions> functions;   // by their unit
  size_t line_bytes = 0, function_bytes = 0;
  uint64_t shared_read = 0, lines_read = 0, units_from = 0, next_unit = 0, looked_through = 0;
  bool units_read = false, ready = false, failed = false;

  void step();
  /// In bytes that take as long to unpack.
  uint64_t work() const {
    constexpr uint64_t kUnit = 1024;
    return image->read_bytes() + (shared ? shared->read_bytes() : 0) + units.size() * kUnit +
           looked_through / 2;
  }
  bool read_shared();
  bool begin();
  void read_units();
  void read_lines();
  void finish();
  bool has_more() const { return !large_units.empty() || !large_tables.empty(); }
  void drop_parts() {
    for (const auto part : kAllParts) image->drop(part);
  }
  void drop_if_too_much() {
    if (image->filled() > kMaxFilled) drop_parts();
  }
  void choose_large();
  bool read_functions_on(const Unit& unit);
  void keep_functions_within_bounds();
  void read_large_unit();
  void read_large_table();
  DwarfFunctions::Sections sections() const;
  template <typename Reader>
  bool read_piece(Reader& reader, const Unit& unit, uint64_t size);
  const DwarfFunctions* functions_of(const Unit& unit);
  std::vector<Dwarf_Die> inlined_at(const Unit& unit, uint64_t address);
  bool need(const Unit& unit, uint64_t at, uint64_t size);
  bool need_entry(Dwarf_Die& die);
  UnitLines* open_lines(Dwarf_Die& unit);
  void read_lines_on(UnitLines& lines, uint64_t size);
  const DwarfLineTable* lines_of(Dwarf_Die& unit);
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
  const uint64_t enough = work() + DwarfImage::kPiece;
  while (ranges.size() < kMaxUnitRanges && units.size() < kMaxUnits && work() < enough &&
         (is_last || next_unit < units_from)) {
    Unit unit{next_unit, 0, 0};
    size_t header_size = 0;
    if (!image->need(DwarfImage::kInfo, unit.begin, kMaxUnitHeader) ||
        dwarf_next_unit(dwarf.get(), unit.begin, &unit.end, &header_size, nullptr, nullptr, nullptr, nullptr,
                        nullptr, nullptr) != 0 ||
        unit.end <= unit.begin ||
        !image->need(DwarfImage::kInfo, unit.begin, std::min(unit.end - unit.begin, kMaxEntry))) {
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
    Dwarf_Attribute attribute;
    Dwarf_Word table = 0;
    if (dwarf_formudata(dwarf_attr(&die, DW_AT_stmt_list, &attribute), &table) == 0)
      table_places.emplace_back(table, number);
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
  choose_large();
  ready = true;
}

// Where a table ends is not read but guessed: where the next one begins.
void DwarfLines::Impl::choose_large() {
  std::sort(table_places.begin(), table_places.end());
  for (size_t i = 0; i < table_places.size(); ++i) {
    const auto& [at, unit] = table_places[i];
    const bool is_last = i + 1 == table_places.size();
    const uint64_t end = is_last ? image->size(DwarfImage::kLine) : table_places[i + 1].first;
    if (end > at && end - at >= kLargeTable) large_tables.push_back({end - at, unit});
  }
  table_places = {};
  for (uint32_t i = 0; i < units.size(); ++i)
    if (const uint64_t size = units[i].end - units[i].begin; size >= kLargeUnit && size <= kMaxPart)
      large_units.push_back({size, i});
  const auto keep_largest = [](std::vector<Large>& all, uint64_t most) {
    std::sort(all.begin(), all.end(), [](const Large& a, const Large& b) { return a.size > b.size; });
    uint64_t sum = 0;
    const auto is_too_much = [&](const Large& large) { return (sum += large.size) > most; };
    all.erase(std::find_if(all.begin(), all.end(), is_too_much), all.end());
    std::reverse(all.begin(), all.end());
  };
  keep_largest(large_units, kMaxUnitsAhead);
  keep_largest(large_tables, kMaxTablesAhead);
}

void DwarfLines::Impl::read_large_unit() {
  const Unit& unit = units[large_units.back().unit];
  drop_if_too_much();
  if (read_functions_on(unit)) return;
  large_units.pop_back();
  if (function_bytes > kMaxFunctions) large_units.clear();
}

void DwarfLines::Impl::read_large_table() {
  const Unit& unit = units[large_tables.back().unit];
  drop_if_too_much();
  Dwarf_Die die;
  UnitLines* read = nullptr;
  if (need(unit, unit.begin, kMaxEntry) && dwarf_offdie(dwarf.get(), unit.die, &die)) read = open_lines(die);
  if (read && read->table) read_lines_on(*read, DwarfImage::kPiece);
  if (!read || !read->table || !read->table->left()) large_tables.pop_back();
}

DwarfFunctions::Sections DwarfLines::Impl::sections() const {
  return {image->section(".debug_info"), image->section(".debug_abbrev"), image->section(".debug_ranges"),
          image->section(".debug_rnglists"), image->section(".debug_addr")};
}

// False if it does not go on.
template <typename Reader>
bool DwarfLines::Impl::read_piece(Reader& reader, const Unit& unit, uint64_t size) {
  const uint64_t from = reader.at();
  for (; !reader.done(); size *= 2) {
    const uint64_t piece = std::min(size, unit.end - from);
    if (!image->need(DwarfImage::kInfo, from, piece)) break;
    reader.read(sections(), from + piece);
    looked_through += reader.at() - from;
    if (reader.at() != from) return true;
  }
  return reader.done();
}

// False when nothing is left to read.
bool DwarfLines::Impl::read_functions_on(const Unit& unit) {
  const auto number = static_cast<uint32_t>(&unit - units.data());
  auto it = functions.find(number);
  if (it == functions.end()) {
    if (!need(unit, unit.begin, kMaxUnitHeader)) return false;
    it = functions.try_emplace(number, sections(), unit.begin, unit.end).first;
    function_bytes += it->second.bytes();
  }
  DwarfFunctions& read = it->second;
  const size_t before = read.bytes();
  const bool goes_on = !read.done() && read_piece(read, unit, DwarfImage::kPiece) && !read.done();
  function_bytes += read.bytes() - before;
  return goes_on;
}

// Those of large units stay longest: they take longest.
void DwarfLines::Impl::keep_functions_within_bounds() {
  for (const uint64_t smallest : {kLargeUnit, ~uint64_t{0}}) {
    if (function_bytes <= kMaxFunctions) return;
    std::erase_if(functions, [&](const auto& entry) {
      const Unit& unit = units[entry.first];
      if (unit.end - unit.begin >= smallest) return false;
      function_bytes -= entry.second.bytes();
      return true;
    });
  }
}

const DwarfFunctions* DwarfLines::Impl::functions_of(const Unit& unit) {
  if (unit.end - unit.begin > kMaxPart) return nullptr;
  const auto number = static_cast<uint32_t>(&unit - units.data());
  if (const auto known = functions.find(number); known != functions.end() && known->second.done())
    return &known->second;
  keep_functions_within_bounds();
  while (read_functions_on(unit)) drop_if_too_much();
  const auto known = functions.find(number);
  return known != functions.end() && known->second.done() ? &known->second : nullptr;
}

std::vector<Dwarf_Die> DwarfLines::Impl::inlined_at(const Unit& unit, uint64_t address) {
  std::vector<Dwarf_Die> result;
  const DwarfFunctions* const functions = functions_of(unit);
  if (!functions) return result;
  DwarfFunctions::Search search(*functions, address);
  while (!search.done() && need(unit, search.at(), kMaxEntry))
    if (!read_piece(search, unit, kMaxEntry)) return result;
  for (const uint64_t at : search.inlined())
    if (Dwarf_Die die; need(unit, at, kMaxEntry) && dwarf_offdie(dwarf.get(), at, &die))
      result.push_back(die);
  return result;
}

// All of a small unit: it may be compressed, and then each piece takes as long.
bool DwarfLines::Impl::need(const Unit& unit, uint64_t at, uint64_t size) {
  return unit.end - unit.begin <= DwarfImage::kPiece
             ? image->need(DwarfImage::kInfo, unit.begin, unit.end - unit.begin)
             : image->need(DwarfImage::kInfo, at, std::min(size, unit.end - at));
}

// It may be in another unit than what led to it.
bool DwarfLines::Impl::need_entry(Dwarf_Die& die) {
  if (dwarf_cu_getdwarf(die.cu) != dwarf.get()) return true;
  const Dwarf_Off at = dwarf_dieoffset(&die);
  const auto after = std::upper_bound(units.begin(), units.end(), at,
                                      [](Dwarf_Off at, const Unit& unit) { return at < unit.begin; });
  return after != units.begin() && at < std::prev(after)->end && need(*std::prev(after), at, kMaxEntry);
}

// Those that were asked for are kept: what they are in has to be unpacked again after a while.
DwarfLines::Impl::UnitLines* DwarfLines::Impl::open_lines(Dwarf_Die& unit) {
  Dwarf_Attribute attribute;
  Dwarf_Word at = 0;
  if (dwarf_formudata(dwarf_attr(&unit, DW_AT_stmt_list, &attribute), &at) != 0) return nullptr;
  if (const auto known = lines.find(at); known != lines.end()) return &known->second;
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
      DwarfLineTable::open(made.bytes, {image->section(".debug_str"), image->section(".debug_line_str")},
                           directory ? directory : "");
  if (!made.table) made.bytes = {};
  line_bytes += sizeof(UnitLines) + made.bytes.capacity() + (made.table ? made.table->bytes() : 0);
  return &made;
}

void DwarfLines::Impl::read_lines_on(UnitLines& lines, uint64_t size) {
  if (!lines.table->left()) return;
  const size_t before = lines.table->bytes();
  const uint64_t left = lines.table->left();
  lines.table->read_on(size);
  looked_through += left - lines.table->left();
  line_bytes += lines.table->bytes() - before;
  if (!lines.table->failed()) return;
  line_bytes -= lines.table->bytes() + lines.bytes.capacity();
  lines.table.reset();
  lines.bytes = {};
}

const DwarfLineTable* DwarfLines::Impl::lines_of(Dwarf_Die& unit) {
  UnitLines* const read = open_lines(unit);
  if (!read || !read->table) return nullptr;
  read_lines_on(*read, read->table->left());
  return read->table ? &*read->table : nullptr;
}

const DwarfLines::Impl::Unit* DwarfLines::Impl::find_unit(uint64_t address, Dwarf_Die& die) {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), address,
                             [](uint64_t at, const UnitRange& range) { return at < range.low; });
  // Ranges of a broken file may overlap; a few steps back are enough for sound ones.
  for (int i = 0; i < 8 && it != ranges.begin(); ++i) {
    --it;
    if (address >= it->high) continue;
    const Unit& found = units[it->unit];
    drop_if_too_much();
    (void)functions_of(found);
    if (!need(found, found.begin, kMaxEntry) || !dwarf_offdie(dwarf.get(), found.die, &die)) return nullptr;
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
  } else if (!ready) {
    finish();
  } else if (!large_units.empty()) {
    read_large_unit();
  } else if (!large_tables.empty()) {
    read_large_table();
  }
  // They were only looked through. What is compressed takes longer to be read again than it is worth.
  if (ready && !has_more() && !image->is_packed(DwarfImage::kInfo)) drop_parts();
}

bool DwarfLines::read_on() {
  for (const uint64_t before = impl_->work(); !all_read(); impl_->step())
    if (impl_->work() - before >= DwarfImage::kPiece) return false;
  return true;
}

bool DwarfLines::all_read() const { return (impl_->ready && !impl_->has_more()) || impl_->failed; }

bool DwarfLines::read_units() {
  while (!impl_->ready && !impl_->failed) impl_->step();
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
  std::vector<Dwarf_Die> inlined = impl_->inlined_at(*found, address);
  for (auto die = inlined.rbegin(); die != inlined.rend(); ++die) {
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

bool DwarfLines::is_packed() const { return impl_->image->is_packed(DwarfImage::kInfo); }

size_t DwarfLines::bytes() const {
  // What libdw makes of a unit.
  constexpr size_t kUnit = 1024;
  size_t sum = impl_->image->bytes() + impl_->line_bytes + impl_->function_bytes +
               impl_->ranges.capacity() * sizeof(Impl::UnitRange) +
               impl_->units.size() * (kUnit + sizeof(Impl::Unit));
  if (impl_->shared) sum += impl_->shared->bytes();
  return sum;
}

}  // namespace looptrace
