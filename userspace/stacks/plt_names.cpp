// SPDX-License-Identifier: Apache-2.0
#include "stacks/plt_names.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "stacks/elf_file.h"

namespace looptrace {
namespace {

constexpr uint64_t kStub = 16;
constexpr size_t kMaxRelocations = 1u << 20;
constexpr size_t kMaxName = 4096;

// The address that the stub at `address` jumps through: [endbr64] [bnd] jmp *disp32(%rip).
std::optional<uint64_t> jump_slot(std::string_view code, uint64_t address) {
  size_t at = 0;
  if (code.starts_with("\xf3\x0f\x1e\xfa")) at = 4;
  if (code.size() > at && code[at] == '\xf2') ++at;
  if (code.size() < at + 6 || code[at] != '\xff' || code[at + 1] != '\x25') return std::nullopt;
  int32_t displacement;
  std::memcpy(&displacement, code.data() + at + 2, sizeof displacement);
  return address + at + 6 + static_cast<uint64_t>(int64_t{displacement});
}

bool is_plt(const ElfFile::Section& section) {
  return section.header.sh_type != SHT_NOBITS &&
         (section.name == ".plt" || section.name == ".plt.sec" || section.name == ".plt.got");
}

}  // namespace

void PltNames::load() {
  loaded_ = true;
  symbols_ = find_symbols(file_, SHT_DYNSYM);
  if (!symbols_) return;
  for (const ElfFile::Section& section : file_.sections()) {
    if (section.header.sh_type != SHT_RELA || (section.name != ".rela.plt" && section.name != ".rela.dyn"))
      continue;
    const std::string bytes = file_.load(section);
    for (size_t at = 0; at + sizeof(Elf64_Rela) <= bytes.size() && slots_.size() < kMaxRelocations;
         at += sizeof(Elf64_Rela)) {
      Elf64_Rela rela;
      std::memcpy(&rela, bytes.data() + at, sizeof rela);
      const auto type = ELF64_R_TYPE(rela.r_info);
      if (type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT)
        slots_.emplace_back(rela.r_offset, static_cast<uint32_t>(ELF64_R_SYM(rela.r_info)));
    }
  }
  std::sort(slots_.begin(), slots_.end());
}

std::optional<Symbol> PltNames::find(uint64_t address) {
  if (file_.header().e_machine != EM_X86_64) return std::nullopt;
  for (const ElfFile::Section& section : file_.sections()) {
    const Elf64_Shdr& header = section.header;
    if (address < header.sh_addr || address - header.sh_addr >= header.sh_size || !is_plt(section)) continue;
    const uint64_t step = section.name == ".plt.got" && header.sh_entsize == 8 ? 8 : kStub;
    const uint64_t offset = (address - header.sh_addr) / step * step, start = header.sh_addr + offset;
    if (const auto known = names_.find(start); known != names_.end())
      return Symbol{known->second, start, step};
    if (!loaded_) load();
    if (!symbols_) return std::nullopt;
    const std::string code = file_.load(header.sh_offset + offset, std::min(step, header.sh_size - offset));
    const auto slot = jump_slot(code, start);
    if (!slot) return std::nullopt;
    const auto it = std::lower_bound(slots_.begin(), slots_.end(), std::pair(*slot, uint32_t{0}));
    Elf64_Sym symbol;
    if (it == slots_.end() || it->first != *slot || it->second >= symbols_->count ||
        !file_.pread(symbols_->entries_at + it->second * sizeof symbol, &symbol, sizeof symbol))
      return std::nullopt;
    std::string name = read_name(file_, *symbols_, symbol.st_name);
    if (name.empty() || name.size() > kMaxName) return std::nullopt;
    name += "@plt";
    name_bytes_ += name.capacity() + 64;
    return Symbol{names_.emplace(start, std::move(name)).first->second, start, step};
  }
  return std::nullopt;
}

}  // namespace looptrace
