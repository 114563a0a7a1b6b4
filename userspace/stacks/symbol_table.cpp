// SPDX-License-Identifier: Apache-2.0
#include "stacks/symbol_table.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <tuple>

#include "stacks/elf_file.h"
#include "stacks/internal_name.h"

namespace looptrace {
namespace {

// Symbols may lie inside one another; an enclosing one is looked for this far back.
constexpr int kMaxEnclosing = 16;

// A stub names its function only within this size.
constexpr uint64_t kPltEntry = 16;
constexpr size_t kMaxRelocations = 1u << 20;

bool is_function(const Elf64_Sym& symbol, const ElfFile& file) {
  if (symbol.st_shndx == SHN_UNDEF || symbol.st_value == 0) return false;
  const auto type = ELF64_ST_TYPE(symbol.st_info);
  if (type == STT_FUNC || type == STT_GNU_IFUNC) return true;
  // Labels of hand-written assembler.
  return type == STT_NOTYPE && symbol.st_shndx < file.sections().size() &&
         (file.sections()[symbol.st_shndx].header.sh_flags & SHF_EXECINSTR);
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

// The address that the stub at `code` jumps through: [endbr64] [bnd] jmp *disp32(%rip).
std::optional<uint64_t> jump_slot(std::string_view code, uint64_t address) {
  size_t at = 0;
  if (code.starts_with("\xf3\x0f\x1e\xfa")) at = 4;
  if (code.size() > at && code[at] == '\xf2') ++at;
  if (code.size() < at + 6 || code[at] != '\xff' || code[at + 1] != '\x25') return std::nullopt;
  int32_t displacement;
  std::memcpy(&displacement, code.data() + at + 2, sizeof displacement);
  return address + at + 6 + static_cast<uint64_t>(int64_t{displacement});
}

}  // namespace

bool SymbolTable::Builder::add(const ElfFile& file, RawSymbols raw, bool all) {
  sources_.push_back(std::make_unique<RawSymbols>(std::move(raw)));
  const RawSymbols& table = *sources_.back();
  const size_t before = candidates_.size();
  for (size_t i = 1; i < table.size(); ++i) {
    const Elf64_Sym symbol = table.at(i);
    if (!is_function(symbol, file)) continue;
    const std::string_view name = plain_name(table.name(symbol));
    if (name.empty() || (symbol.st_size == 0 && !all)) continue;
    uint64_t limit = symbol.st_value + 4096;
    if (symbol.st_shndx < file.sections().size()) {
      const Elf64_Shdr& section = file.sections()[symbol.st_shndx].header;
      limit = section.sh_addr + section.sh_size;
    }
    const auto bind = ELF64_ST_BIND(symbol.st_info);
    const uint8_t rank = bind == STB_GLOBAL ? 0 : bind == STB_WEAK ? 1 : 2;
    const bool untyped = ELF64_ST_TYPE(symbol.st_info) == STT_NOTYPE;
    candidates_.push_back({symbol.st_value, symbol.st_size, limit, name,
                           static_cast<uint8_t>(rank | (symbol.st_size ? 0 : 4) | (untyped ? 8 : 0))});
  }
  return candidates_.size() > before;
}

bool SymbolTable::Builder::add_without_names(const ElfFile& file, RawSymbols raw) {
  const bool any = add(file, std::move(raw));
  left_ = sources_.back().get();
  left_file_ = &file;
  return any;
}

void SymbolTable::Builder::add_plt(const ElfFile& file, const RawSymbols& dynamic) {
  if (file.header().e_machine != EM_X86_64) return;
  std::vector<std::pair<uint64_t, uint32_t>> slots;  // address of the GOT entry, symbol
  for (const ElfFile::Section& section : file.sections()) {
    if (section.header.sh_type != SHT_RELA || (section.name != ".rela.plt" && section.name != ".rela.dyn"))
      continue;
    const std::string bytes = file.load(section);
    for (size_t at = 0; at + sizeof(Elf64_Rela) <= bytes.size() && slots.size() < kMaxRelocations;
         at += sizeof(Elf64_Rela)) {
      Elf64_Rela rela;
      std::memcpy(&rela, bytes.data() + at, sizeof rela);
      const auto type = ELF64_R_TYPE(rela.r_info);
      if (type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT)
        slots.emplace_back(rela.r_offset, static_cast<uint32_t>(ELF64_R_SYM(rela.r_info)));
    }
  }
  if (slots.empty()) return;
  std::sort(slots.begin(), slots.end());
  for (const ElfFile::Section& section : file.sections()) {
    if (section.name != ".plt" && section.name != ".plt.sec" && section.name != ".plt.got") continue;
    const std::string code = file.load(section);
    const uint64_t step = section.name == ".plt.got" && section.header.sh_entsize == 8 ? 8 : kPltEntry;
    for (uint64_t at = 0; at < code.size(); at += step) {
      const uint64_t address = section.header.sh_addr + at;
      const auto slot = jump_slot(std::string_view(code).substr(at, step), address);
      if (!slot) continue;
      const auto it = std::lower_bound(slots.begin(), slots.end(), std::pair(*slot, uint32_t{0}));
      if (it == slots.end() || it->first != *slot || it->second >= dynamic.size()) continue;
      const std::string_view name = dynamic.name(dynamic.at(it->second));
      if (name.empty() || name.size() > 4096) continue;
      plt_names_.push_back(std::make_unique<std::string>(std::string(name) + "@plt"));
      candidates_.push_back({address, step, address + step, *plt_names_.back(), 3});
    }
  }
}

SymbolTable SymbolTable::Builder::build() {
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
    if (a.start != b.start) return a.start < b.start;
    if (a.rank / 4 != b.rank / 4) return a.rank < b.rank;
    const size_t a_bars = leading_underscores(a.name), b_bars = leading_underscores(b.name);
    if (a_bars != b_bars) return a_bars < b_bars;
    return std::tuple(a.rank, a.name.size(), a.name) < std::tuple(b.rank, b.name.size(), b.name);
  });
  SymbolTable table;
  const char* const left_names = left_ ? left_->names.data() : nullptr;
  if (left_) {
    table.file_ = left_file_;
    table.names_at_ = left_->names_at;
    table.names_size_ = left_->names.size();
  }
  const auto is_left = [&](std::string_view name) {
    return left_ && name.data() >= left_names && name.data() < left_names + left_->names.size();
  };
  size_t count = 0, name_bytes = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (i && candidates_[i].start == candidates_[i - 1].start) continue;
    ++count;
    if (!is_left(candidates_[i].name)) name_bytes += candidates_[i].name.size() + 1;
  }
  table.entries_.reserve(count);
  table.names_.reserve(std::min<size_t>(name_bytes, ElfFile::kMaxPiece));
  for (size_t i = 0; i < candidates_.size();) {
    const Candidate& best = candidates_[i];
    size_t next = i + 1;
    while (next < candidates_.size() && candidates_[next].start == best.start) ++next;
    if (table.names_.size() + best.name.size() >= ElfFile::kMaxPiece) break;
    uint64_t size = best.size;
    if (size == 0) {
      const uint64_t end =
          next < candidates_.size() ? std::min(candidates_[next].start, best.limit) : best.limit;
      size = end > best.start ? end - best.start : 1;
    }
    const bool left = is_left(best.name);
    table.entries_.push_back(
        {best.start, static_cast<uint32_t>(std::min<uint64_t>(size, std::numeric_limits<uint32_t>::max())),
         left ? static_cast<uint32_t>(best.name.data() - left_names) | kInFile
              : static_cast<uint32_t>(table.names_.size())});
    i = next;
    if (left) continue;
    table.names_.append(best.name);
    table.names_.push_back('\0');
  }
  return table;
}

std::optional<Symbol> SymbolTable::find(uint64_t address) const {
  auto it = std::upper_bound(entries_.begin(), entries_.end(), address,
                             [](uint64_t at, const Entry& entry) { return at < entry.start; });
  for (int i = 0; i < kMaxEnclosing && it != entries_.begin(); ++i) {
    --it;
    if (address - it->start < it->size) return Symbol{name(it->name), it->start, it->size};
  }
  return std::nullopt;
}

std::string_view SymbolTable::name(uint32_t at) const {
  if (!(at & kInFile)) return names_.c_str() + at;
  if (const auto known = read_.find(at); known != read_.end()) return known->second;
  std::string text;
  for (uint64_t from = at & ~kInFile; from < names_size_ && text.find('\0') == text.npos;) {
    std::array<char, 256> piece;
    const size_t size = std::min<uint64_t>(piece.size(), names_size_ - from);
    if (!file_->pread(names_at_ + from, piece.data(), size)) break;
    text.append(piece.data(), size);
    from += size;
  }
  text.resize(std::min(text.find('\0'), text.size()));
  // As plain_name() has it; of the prefix the offset knows.
  if (const size_t version = text.find('@'); version != text.npos && version > 0) text.resize(version);
  text.shrink_to_fit();
  read_bytes_ += text.capacity() + 64;
  return read_.emplace(at, std::move(text)).first->second;
}

size_t SymbolTable::bytes() const {
  return entries_.capacity() * sizeof(Entry) + names_.capacity() + read_bytes_;
}

NameIndex::NameIndex(const ElfFile& file, const RawSymbols& raw)
    : file_(file), entries_at_(raw.entries_at), names_at_(raw.names_at), names_size_(raw.names.size()) {
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
  std::string stored(name.size() + 1, '\0');
  for (; it != index_.end() && it->hash == hash; ++it) {
    Elf64_Sym symbol;
    if (!file_.pread(entries_at_ + it->symbol * sizeof symbol, &symbol, sizeof symbol)) continue;
    if (symbol.st_name >= names_size_ ||
        !file_.pread(names_at_ + symbol.st_name, stored.data(), stored.size()))
      continue;
    if (std::string_view(stored) == std::string(name) + '\0')
      return Symbol{name, symbol.st_value, symbol.st_size};
  }
  return std::nullopt;
}

}  // namespace looptrace
