// SPDX-License-Identifier: Apache-2.0
#include "stacks/dwarf_lines.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <libelf.h>

#include <algorithm>
#include <string>

#include "base/free_with.h"
#include "stacks/elf_file.h"
#include "stacks/internal_name.h"
#include "stacks/separate_debug.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace {

// libdw holds all of it in memory while open.
constexpr uint64_t kMaxDwarf = 512u << 20;
// Bounds on a walk through one unit's tree: broken files have loops.
constexpr size_t kMaxDies = 1u << 20;
constexpr int kMaxDepth = 128;
constexpr size_t kMaxInlined = 64;
constexpr size_t kMaxUnitRanges = 4u << 20;

using ElfPtr = std::unique_ptr<Elf, FreeWith<elf_end>>;
using DwarfPtr = std::unique_ptr<Dwarf, FreeWith<dwarf_end>>;

bool is_debug_section(const ElfFile::Section& section) {
  return section.header.sh_type != SHT_NOBITS &&
         (section.name.starts_with(".debug_") || section.name.starts_with(".zdebug_"));
}

// The bytes of all debug sections once unpacked; kMaxDwarf + 1 for "too many".
uint64_t dwarf_size(const ElfFile& file) {
  uint64_t total = 0;
  for (const ElfFile::Section& section : file.sections()) {
    if (!is_debug_section(section)) continue;
    uint64_t size = section.header.sh_size;
    if (size > file.size()) return kMaxDwarf + 1;
    if (section.header.sh_flags & SHF_COMPRESSED) {
      Elf64_Chdr packed;
      if (!file.pread(section.header.sh_offset, &packed, sizeof packed)) return kMaxDwarf + 1;
      if (packed.ch_size > kMaxDwarf) return kMaxDwarf + 1;
      size += packed.ch_size;
    }
    total += size;
    if (total > kMaxDwarf) return kMaxDwarf + 1;
  }
  return total;
}

ElfPtr begin(const ElfFile& file) {
  if (file.fd() >= 0) return ElfPtr(elf_begin(file.fd(), ELF_C_READ, nullptr));
  // libelf takes a writable pointer but does not write through it here.
  auto* image = reinterpret_cast<char*>(const_cast<uint8_t*>(file.image().data()));
  return ElfPtr(elf_memory(image, file.image().size()));
}

std::string function_name(Dwarf_Die* die) {
  Dwarf_Attribute attribute;
  for (const unsigned kind : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
    if (!dwarf_attr_integrate(die, kind, &attribute)) continue;
    if (const char* name = dwarf_formstring(&attribute)) return demangle(name);
  }
  if (!dwarf_attr_integrate(die, DW_AT_name, &attribute)) return {};
  const char* name = dwarf_formstring(&attribute);
  return name ? std::string(without_internal_prefix(name)) : "";
}

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
  struct UnitRange {
    uint64_t low, high;
    Dwarf_Off unit;
  };

  std::unique_ptr<ElfFile> shared;  // what dwz took out of this file and others
  ElfPtr shared_elf;
  DwarfPtr shared_dwarf;
  ElfPtr elf;
  DwarfPtr dwarf;
  std::vector<UnitRange> ranges;  // by low
  uint64_t size = 0;

  void index_units();
  bool find_unit(uint64_t address, Dwarf_Die& unit);
};

// All units' ranges: .debug_aranges is absent or incomplete with several compilers.
void DwarfLines::Impl::index_units() {
  Dwarf_CU* unit = nullptr;
  Dwarf_Die die;
  uint8_t unit_type = 0;
  while (ranges.size() < kMaxUnitRanges &&
         dwarf_get_units(dwarf.get(), unit, &unit, nullptr, &unit_type, &die, nullptr) == 0) {
    // A skeleton has the lines of a unit whose functions are in a .dwo file, which is not read.
    if (const int tag = dwarf_tag(&die); tag != DW_TAG_compile_unit && tag != DW_TAG_skeleton_unit) continue;
    const Dwarf_Off offset = dwarf_dieoffset(&die);
    Dwarf_Addr base, low, high;
    ptrdiff_t at = 0;
    while ((at = dwarf_ranges(&die, at, &base, &low, &high)) > 0 && ranges.size() < kMaxUnitRanges)
      if (low < high) ranges.push_back({low, high, offset});
  }
  std::sort(ranges.begin(), ranges.end(), [](auto& a, auto& b) { return a.low < b.low; });
  ranges.shrink_to_fit();
}

bool DwarfLines::Impl::find_unit(uint64_t address, Dwarf_Die& unit) {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), address,
                             [](uint64_t at, const UnitRange& range) { return at < range.low; });
  // Ranges of a broken file may overlap; a few steps back are enough for sound ones.
  for (int i = 0; i < 8 && it != ranges.begin(); ++i) {
    --it;
    if (address < it->high) return dwarf_offdie(dwarf.get(), it->unit, &unit) != nullptr;
  }
  return false;
}

bool DwarfLines::has_dwarf(const ElfFile& file) {
  bool lines = false, units = false;
  for (const ElfFile::Section& section : file.sections()) {
    if (!is_debug_section(section)) continue;
    lines |= section.name.ends_with("debug_line");
    units |= section.name.ends_with("debug_info");
  }
  return lines && units && dwarf_size(file) <= kMaxDwarf;
}

DwarfLines::DwarfLines(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DwarfLines::~DwarfLines() = default;

std::unique_ptr<DwarfLines> DwarfLines::open(const ElfFile& file, const std::string& root) {
  if (!has_dwarf(file)) return nullptr;
  elf_version(EV_CURRENT);
  auto impl = std::make_unique<Impl>();
  impl->elf = begin(file);
  if (impl->elf) impl->dwarf.reset(dwarf_begin_elf(impl->elf.get(), DWARF_C_READ, nullptr));
  if (!impl->dwarf) return nullptr;
  impl->size = dwarf_size(file);
  if (has_supplementary(file)) {
    // libdw would open what the file names, be it a FIFO: so it gets one, or nothing of this file.
    impl->shared = find_supplementary(file, root);
    const uint64_t size = impl->shared ? dwarf_size(*impl->shared) : 0;
    if (!size || size > kMaxDwarf) return nullptr;
    impl->shared_elf = begin(*impl->shared);
    if (impl->shared_elf)
      impl->shared_dwarf.reset(dwarf_begin_elf(impl->shared_elf.get(), DWARF_C_READ, nullptr));
    if (!impl->shared_dwarf) return nullptr;
    dwarf_setalt(impl->dwarf.get(), impl->shared_dwarf.get());
    impl->size += size;
  }
  impl->index_units();
  return std::unique_ptr<DwarfLines>(new DwarfLines(std::move(impl)));
}

std::vector<ElfObject::Position> DwarfLines::positions(uint64_t address) {
  std::vector<ElfObject::Position> result;
  Dwarf_Die unit;
  if (!impl_->find_unit(address, unit)) return result;

  ElfObject::Position here;
  if (Dwarf_Line* line = dwarf_getsrc_die(&unit, address)) {
    if (const char* file = dwarf_linesrc(line, nullptr, nullptr)) here.file = file;
    dwarf_lineno(line, &here.line);
  }
  Dwarf_Files* files = nullptr;
  size_t nfiles = 0;
  if (dwarf_getsrcfiles(&unit, &files, &nfiles) != 0) files = nullptr;

  // From the innermost outwards: each inlined function's call site is where its caller is.
  std::vector<Dwarf_Die> path = Descent(address).run(&unit);
  for (auto die = path.rbegin(); die != path.rend(); ++die) {
    if (dwarf_tag(&*die) != DW_TAG_inlined_subroutine) continue;
    here.function = function_name(&*die);
    result.push_back(std::move(here));
    here = {};
    Dwarf_Attribute attribute;
    Dwarf_Word value;
    if (dwarf_formudata(dwarf_attr(&*die, DW_AT_call_file, &attribute), &value) == 0 && files &&
        value < nfiles)
      if (const char* file = dwarf_filesrc(files, value, nullptr, nullptr)) here.file = file;
    if (dwarf_formudata(dwarf_attr(&*die, DW_AT_call_line, &attribute), &value) == 0 && value < 1u << 30)
      here.line = static_cast<int>(value);
  }
  if (result.empty() && here.file.empty() && here.line == 0) return result;
  result.push_back(std::move(here));
  return result;
}

size_t DwarfLines::bytes() const {
  // What libdw decodes besides (abbreviations, line tables of units asked for) is about the size of what
  // it decodes it from, at most; half is a fair mean.
  return impl_->size + impl_->size / 2 + impl_->ranges.capacity() * sizeof(Impl::UnitRange);
}

}  // namespace looptrace
