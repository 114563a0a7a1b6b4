// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/native_code.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

namespace looptrace::cpython {
namespace {

constexpr uint64_t kMaxPart = 1u << 20;  // the largest seen has 82 KiB
constexpr size_t kMaxEvalParts = 8;
constexpr uint64_t kSmallFunction = 1024;
constexpr uint64_t kCollector = 2048;  // seen: 4.7 to 8.4 KB

template <typename T>
std::optional<T> read(const ElfObject& object, uint64_t address) {
  T value;
  if (!object.read(address, &value, sizeof value)) return std::nullopt;
  return value;
}

}  // namespace

NativeCode::NativeCode(const ElfObject& object) : object_(object) {
  const auto base = object.bias(0, 0);  // minus the address of the file's first byte
  if (!base) return;
  const uint64_t first = 0 - *base;
  const auto header = read<Elf64_Ehdr>(object, first);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return;
  for (unsigned i = 0; i < std::min<unsigned>(header->e_phnum, 64); ++i) {
    const auto segment = read<Elf64_Phdr>(object, first + header->e_phoff + i * sizeof(Elf64_Phdr));
    if (segment && segment->p_type == PT_GNU_EH_FRAME) open(segment->p_vaddr);
  }
}

void NativeCode::open(uint64_t header) {
  // Version 1, then the one set of encodings that linkers write: pointer to .eh_frame 4 bytes relative to
  // itself, count 4 bytes, table of 4 + 4 bytes relative to the header.
  constexpr uint32_t kUsual = 0x3b031b01;
  if (read<uint32_t>(object_, header) != kUsual) return;
  header_ = header;
  count_ = std::min(read<uint32_t>(object_, header + 8).value_or(0), 1u << 24);
}

std::optional<NativeCode::Entry> NativeCode::entry(uint32_t index) const {
  const auto start = read<int32_t>(object_, header_ + 12 + 8ull * index);
  const auto fde = read<int32_t>(object_, header_ + 16 + 8ull * index);
  if (!start || !fde) return std::nullopt;
  return Entry{header_ + *start, header_ + *fde};
}

std::optional<AddressRange> NativeCode::part(uint64_t address) const {
  uint32_t low = 0, high = count_;  // first entry that starts after `address`
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const auto e = entry(middle);
    if (!e) return std::nullopt;
    if (e->start <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const auto e = low ? entry(low - 1) : std::nullopt;
  if (!e) return std::nullopt;
  // An FDE: length, CIE pointer, begin relative to itself, size; 4 bytes each.
  const auto begin = read<int32_t>(object_, e->fde + 8);
  const auto size = read<uint32_t>(object_, e->fde + 12);
  if (!begin || !size || e->fde + 8 + *begin != e->start || *size > kMaxPart) return std::nullopt;
  const AddressRange range{e->start, e->start + *size};
  if (!range.holds(address)) return std::nullopt;
  return range;
}

std::set<uint64_t> NativeCode::targets(const AddressRange& range, Branch branch) const {
  std::set<uint64_t> found;
  if (range.size() > kMaxPart) return found;
  std::vector<uint8_t> code(range.size());
  if (!object_.read(range.start, code.data(), code.size())) return found;
  for (size_t i = 0; i + 5 <= code.size(); ++i) {
    const bool jmp = code[i] == 0xe9;
    const bool call = code[i] == 0xe8 && branch == Branch::call_or_jump;
    const bool jcc = code[i] == 0x0f && (code[i + 1] & 0xf0) == 0x80 && i + 6 <= code.size();
    if (!jmp && !call && !jcc) continue;
    const size_t distance_at = i + (jcc ? 2 : 1);
    int32_t distance = 0;
    std::memcpy(&distance, &code[distance_at], sizeof distance);
    const uint64_t target = range.start + distance_at + 4 + distance;
    if (!range.holds(target)) found.insert(target);
  }
  return found;
}

std::vector<AddressRange> eval_ranges(const ElfObject& object, const Symbol& eval) {
  const NativeCode code(object);
  const AddressRange main{eval.start, eval.start + eval.size};
  std::vector<AddressRange> parts = {main};
  std::set<uint64_t> refused;  // starts of functions that are none of ours
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const uint64_t target : code.targets(parts[i], NativeCode::Branch::jump)) {
      if (parts.size() == kMaxEvalParts) return parts;
      const auto is_target = [&](const AddressRange& part) { return part.holds(target); };
      if (std::any_of(parts.begin(), parts.end(), is_target)) continue;
      const auto part = code.part(target);
      // A jump to a function's first byte is a tail call.
      if (!part || target == part->start || refused.contains(part->start)) continue;
      const auto back = code.targets(*part, NativeCode::Branch::jump);
      const auto returns = [&](uint64_t to) { return to != main.start && main.holds(to); };
      if (std::any_of(back.begin(), back.end(), returns)) {
        parts.push_back(*part);
      } else {
        refused.insert(part->start);
      }
    }
  }
  return parts;
}

std::vector<AddressRange> collector_ranges(ElfObject& object, const Symbol& collect) {
  const NativeCode code(object);
  std::vector<AddressRange> collectors;
  std::vector<AddressRange> callers = {{collect.start, collect.start + collect.size}};
  for (int depth = 0; depth < 2; ++depth) {
    std::vector<AddressRange> small;
    for (const AddressRange& caller : callers) {
      for (const uint64_t target : code.targets(caller, NativeCode::Branch::call_or_jump)) {
        const auto callee = code.part(target);
        if (!callee || callee->start != target) continue;
        const auto symbol = object.find_symbol(target);
        const bool is_api = symbol && symbol->start == target &&
                            (symbol->name.starts_with("Py") || symbol->name.starts_with("_Py"));
        if (is_api) continue;
        if (callee->size() >= kCollector) collectors.push_back(*callee);
        if (callee->size() <= kSmallFunction) small.push_back(*callee);
      }
    }
    if (!collectors.empty()) break;
    callers = std::move(small);
  }
  return collectors;
}

}  // namespace looptrace::cpython
