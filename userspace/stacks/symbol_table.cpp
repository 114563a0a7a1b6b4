// SPDX-License-Identifier: Apache-2.0
#include "stacks/symbol_table.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>

#include "base/buckets.h"
#include "stacks/elf_file.h"
#include "stacks/internal_name.h"

namespace looptrace {
namespace {

// Symbols may lie inside one another; an enclosing one is looked for this far back.
constexpr int kMaxEnclosing = 16;

// A file may be made to be slow: what is compared of one address (libraries have a dozen), and how many
// symbols and buckets are stepped over for one look.
constexpr std::ptrdiff_t kMaxAliases = 64;
constexpr size_t kMaxSteps = 1 << 14;

constexpr uint32_t kNone = 0xffffffff;

// Entry::symbol: a number below the 4 million that are read, the source, the rank.
constexpr uint32_t kNumber = (1u << 24) - 1;
constexpr uint32_t kSourceShift = 24, kRankShift = 28;
constexpr size_t kMaxSources = 4;

// In pieces that stay in the CPU's cache.
constexpr size_t kPiece = 2048;

bool is_function(const Elf64_Sym& symbol, const ElfFile& file) {
  if (symbol.st_shndx == SHN_UNDEF || symbol.st_value == 0 || symbol.st_name == 0) return false;
  const auto type = ELF64_ST_TYPE(symbol.st_info);
  if (type == STT_FUNC || type == STT_GNU_IFUNC) return true;
  // Labels of hand-written assembler.
  return type == STT_NOTYPE && symbol.st_shndx < file.sections().size() &&
         (file.sections()[symbol.st_shndx].header.sh_flags & SHF_EXECINSTR);
}

uint32_t rank_of(const Elf64_Sym& symbol) {
  const auto bind = ELF64_ST_BIND(symbol.st_info);
  const bool untyped = ELF64_ST_TYPE(symbol.st_info) == STT_NOTYPE;
  return (bind == STB_GLOBAL ? 0 : bind == STB_WEAK ? 1 : 2) | (symbol.st_size ? 0 : 4) | (untyped ? 8 : 0);
}

// "clock_nanosleep@@GLIBC_2.17" and glibc's alias for calls from within, "__GI___poll": the function's name
// alone.
std::string_view plain_name(std::string_view name) {
  if (const size_t version = name.find('@'); version != std::string_view::npos && version > 0) {
    name = name.substr(0, version);
  }
  return without_internal_prefix(name);
}

size_t leading_underscores(std::string_view name) {
  // A mangled name's underscore says nothing.
  if (name.starts_with("_Z") || name.starts_with("_R")) return 0;
  return std::min(name.find_first_not_of('_'), name.size());
}

uint64_t lowest_code(const ElfFile& file) {
  uint64_t lowest = std::numeric_limits<uint64_t>::max();
  for (const ElfFile::Section& section : file.sections())
    if (section.header.sh_flags & SHF_EXECINSTR) lowest = std::min<uint64_t>(lowest, section.header.sh_addr);
  for (const Elf64_Phdr& segment : file.segments())
    if (segment.p_type == PT_LOAD && segment.p_flags & PF_X)
      lowest = std::min<uint64_t>(lowest, segment.p_vaddr);
  return lowest;
}

}  // namespace

SymbolTable::SymbolTable(const ElfFile& file) : base_(lowest_code(file)) {}

bool SymbolTable::add(const ElfFile& from, uint32_t type, bool all) {
  const auto section = find_symbols(from, type);
  if (!section || sources_.size() == kMaxSources) return false;
  const size_t before = entries_.size();
  const auto source = static_cast<uint32_t>(sources_.size()) << kSourceShift;
  sources_.push_back({&from, *section});
  entries_.reserve(before + section->count);
  std::vector<Elf64_Sym> piece(std::min<uint64_t>(kPiece, section->count));
  for (uint64_t at = 0; at < section->count; at += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), section->count - at));
    if (!from.pread(section->entries_at + at * sizeof(Elf64_Sym), piece.data(),
                    piece.size() * sizeof(Elf64_Sym)))
      break;
    for (size_t i = 0; i < piece.size(); ++i) {
      const Elf64_Sym& symbol = piece[i];
      if (!is_function(symbol, from) || symbol.st_value - base_ >= kNone) continue;
      if (symbol.st_size == 0 && !all) continue;
      entries_.push_back({static_cast<uint32_t>(symbol.st_value - base_),
                          static_cast<uint32_t>(std::min<uint64_t>(symbol.st_size, kNone)),
                          static_cast<uint32_t>(at + i) | source | rank_of(symbol) << kRankShift, kNone});
    }
  }
  entries_.shrink_to_fit();
  deal_out();
  return entries_.size() > before;
}

bool SymbolTable::add(std::unique_ptr<ElfFile> from, uint32_t type) {
  kept_.push_back(std::move(from));
  return add(*kept_.back(), type);
}

void SymbolTable::deal_out() {
  uint32_t highest = 0;
  for (const Entry& entry : entries_) highest = std::max(highest, entry.start);
  shift_ = bucket_shift(highest, entries_.size());
  buckets_.assign((highest >> shift_) + 1, kNone);
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    uint32_t& first = buckets_[entries_[i].start >> shift_];
    entries_[i].next = first;
    first = i;
  }
}

// Those of a bucket that do not begin above `up_to`. False if the steps are used up.
bool SymbolTable::collect(uint32_t bucket, uint32_t up_to, std::vector<Entry>& into, size_t& steps) const {
  if (steps-- <= 1) return false;
  for (uint32_t i = buckets_[bucket]; i != kNone; i = entries_[i].next) {
    if (steps-- <= 1) return false;
    if (entries_[i].start <= up_to) into.push_back(entries_[i]);
  }
  return true;
}

// Up to the next symbol, but not past its section. Nothing if the steps are used up.
std::optional<uint32_t> SymbolTable::end_without_size(const Entry& entry, size_t& steps) const {
  const Source& source = sources_[entry.symbol >> kSourceShift & (kMaxSources - 1)];
  uint64_t end = base_ + entry.start + 4096;
  Elf64_Sym symbol;
  const auto& sections = source.file->sections();
  if (source.file->pread(source.section.entries_at + (entry.symbol & kNumber) * sizeof symbol, &symbol,
                         sizeof symbol) &&
      symbol.st_shndx < sections.size()) {
    const Elf64_Shdr& section = sections[symbol.st_shndx].header;
    end = section.sh_addr + section.sh_size;
  }
  end = end > base_ + entry.start ? std::min<uint64_t>(end - base_, kNone) : uint64_t{entry.start} + 1;
  auto nearest = static_cast<uint32_t>(end);
  for (uint32_t bucket = entry.start >> shift_; bucket <= (nearest >> shift_) && bucket < buckets_.size();
       ++bucket) {
    if (steps-- <= 1) return std::nullopt;
    for (uint32_t i = buckets_[bucket]; i != kNone; i = entries_[i].next) {
      if (steps-- <= 1) return std::nullopt;
      if (entries_[i].start > entry.start) nearest = std::min(nearest, entries_[i].start);
    }
  }
  return nearest;
}

const std::string& SymbolTable::name(const Entry& entry) const {
  const uint32_t key = entry.symbol & ((1u << kRankShift) - 1);
  if (const auto known = names_.find(key); known != names_.end()) return known->second;
  const Source& source = sources_[key >> kSourceShift];
  Elf64_Sym symbol;
  std::string text;
  if (source.file->pread(source.section.entries_at + (key & kNumber) * sizeof symbol, &symbol, sizeof symbol))
    text = plain_name(read_name(*source.file, source.section, symbol.st_name));
  name_bytes_ += text.capacity() + 64;
  return names_.emplace(key, std::move(text)).first->second;
}

bool SymbolTable::reads_better(const Entry& a, const Entry& b) const {
  const uint32_t a_rank = a.symbol >> kRankShift, b_rank = b.symbol >> kRankShift;
  if (a_rank / 4 != b_rank / 4) return a_rank < b_rank;
  const std::string &a_name = name(a), &b_name = name(b);
  if (a_name.empty() != b_name.empty()) return b_name.empty();
  const size_t a_bars = leading_underscores(a_name), b_bars = leading_underscores(b_name);
  if (a_bars != b_bars) return a_bars < b_bars;
  return std::tuple(a_rank, a_name.size(), std::string_view(a_name)) <
         std::tuple(b_rank, b_name.size(), std::string_view(b_name));
}

std::optional<Symbol> SymbolTable::find(uint64_t address) const {
  if (entries_.empty() || address - base_ >= kNone) return std::nullopt;
  const auto at = static_cast<uint32_t>(address - base_);
  // From the nearest bucket outwards, until there are enough.
  std::vector<Entry> near;
  uint32_t bucket = std::min<uint32_t>(at >> shift_, static_cast<uint32_t>(buckets_.size() - 1));
  int starts = 0;
  size_t steps = kMaxSteps;
  for (bool more = true; more && starts<kMaxEnclosing; more = bucket--> 0) {
    const auto from = static_cast<std::ptrdiff_t>(near.size());
    if (!collect(bucket, at, near, steps)) return std::nullopt;
    std::sort(near.begin() + from, near.end(),
              [](const Entry& a, const Entry& b) { return a.start > b.start; });
    for (auto first = near.begin() + from; first != near.end() && starts < kMaxEnclosing; ++starts) {
      const auto next =
          std::find_if(first, near.end(), [&](const Entry& e) { return e.start != first->start; });
      const Entry best =
          *std::min_element(first, first + std::min<std::ptrdiff_t>(next - first, kMaxAliases),
                            [&](const Entry& a, const Entry& b) { return reads_better(a, b); });
      const auto end = best.size ? std::nullopt : end_without_size(best, steps);
      if (!best.size && !end) return std::nullopt;
      const uint32_t size = best.size ? best.size : *end - best.start;
      if (at - best.start < size) return Symbol{name(best), base_ + best.start, size};
      first = next;
    }
  }
  return std::nullopt;
}

size_t SymbolTable::bytes() const {
  size_t sum = entries_.capacity() * sizeof(Entry) + buckets_.capacity() * sizeof buckets_[0] + name_bytes_;
  for (const auto& file : kept_) sum += file->bytes();
  return sum;
}

NameIndex::NameIndex(const ElfFile& file, const RawSymbols& raw) : file_(file), section_(raw.section) {
  for (size_t i = 1; i < raw.size(); ++i) {
    const Elf64_Sym symbol = raw.at(i);
    if (symbol.st_shndx == SHN_UNDEF) continue;
    const std::string_view name = raw.name(symbol);
    if (name.empty()) continue;
    index_.push_back({static_cast<uint32_t>(std::hash<std::string_view>()(name)), static_cast<uint32_t>(i)});
  }
  std::sort(index_.begin(), index_.end(), [](const Slot& a, const Slot& b) {
    return std::tie(a.hash, a.symbol) < std::tie(b.hash, b.symbol);
  });
  index_.shrink_to_fit();
}

std::optional<Symbol> NameIndex::find(std::string_view name) const {
  const auto hash = static_cast<uint32_t>(std::hash<std::string_view>()(name));
  auto it = std::lower_bound(index_.begin(), index_.end(), hash,
                             [](const Slot& slot, uint32_t wanted) { return slot.hash < wanted; });
  for (; it != index_.end() && it->hash == hash; ++it) {
    Elf64_Sym symbol;
    if (!file_.pread(section_.entries_at + it->symbol * sizeof symbol, &symbol, sizeof symbol)) continue;
    if (read_name(file_, section_, symbol.st_name) == name)
      return Symbol{name, symbol.st_value, symbol.st_size};
  }
  return std::nullopt;
}

}  // namespace looptrace
