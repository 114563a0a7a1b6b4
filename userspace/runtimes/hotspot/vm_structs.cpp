// SPDX-License-Identifier: Apache-2.0
#include "runtimes/hotspot/vm_structs.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

namespace looptrace::hotspot {
namespace {

constexpr size_t kMaxEntries = 16384;  // JDK 17 has 2,900
constexpr uint64_t kMaxStride = 256;
constexpr uint64_t kLargest = 4096;  // of the structures that are asked for

// One of the tables: where it is, how long an entry is, and where in it a member is.
class Table {
 public:
  Table(const RemoteMemory& memory, ElfObject& libjvm, uint64_t bias, std::string entry)
      : memory_(memory), libjvm_(libjvm), bias_(bias), entry_(std::move(entry)) {}

  uint64_t variable(const std::string& name) const {
    const auto symbol = libjvm_.find_by_name(name);
    return symbol ? memory_.pointer(bias_ + symbol->start) : 0;
  }

  std::optional<uint64_t> member(const char* name) const {
    const uint64_t at = variable(entry_ + name + "Offset");
    return at + 8 <= kMaxStride ? std::optional(at) : std::nullopt;
  }

  // Calls visit(bytes of the entry) until it says false.
  template <typename Visit>
  void each(const char* array, const Visit& visit) const {
    const uint64_t start = variable(array), stride = variable(entry_ + "ArrayStride");
    if (!start || stride < 8 || stride > kMaxStride) return;
    std::array<uint8_t, kMaxStride> entry{};
    for (size_t i = 0; i < kMaxEntries; ++i) {
      if (!memory_.read(start + i * stride, entry.data(), stride) || !visit(entry)) return;
    }
  }

 private:
  const RemoteMemory& memory_;
  ElfObject& libjvm_;
  uint64_t bias_;
  std::string entry_;
};

template <typename Entry>
uint64_t word_at(const Entry& entry, uint64_t offset) {
  uint64_t word = 0;
  std::memcpy(&word, entry.data() + offset, sizeof word);
  return word;
}

unsigned width_of(std::string_view type) {
  constexpr std::array<std::pair<std::string_view, unsigned>, 7> kNumbers = {
      {{"bool", 1}, {"int16_t", 2}, {"u2", 2}, {"int", 4}, {"uint32_t", 4}, {"u4", 4}, {"size_t", 8}}};
  const auto it =
      std::find_if(kNumbers.begin(), kNumbers.end(), [&](const auto& n) { return n.first == type; });
  return it == kNumbers.end() ? 0 : it->second;
}

}  // namespace

std::string read_text(const RemoteMemory& memory, uint64_t address) {
  std::array<char, 255> text;
  const size_t n = address ? memory.read_some(address, text.data(), text.size()) : 0;
  const std::string_view all(text.data(), n);
  const size_t end = all.find('\0');
  return end == std::string_view::npos ? std::string() : std::string(all.substr(0, end));
}

std::optional<VmStructs> VmStructs::read(const RemoteMemory& memory, ElfObject& libjvm, uint64_t bias,
                                         const std::vector<std::string_view>& types) {
  VmStructs structs;
  std::unordered_map<uint64_t, std::string> wanted_types;  // by address of the name; empty = not wanted
  const auto wanted = [&](uint64_t name) -> const std::string& {
    const auto [it, is_new] = wanted_types.try_emplace(name);
    if (is_new) {
      std::string text = read_text(memory, name);
      if (std::find(types.begin(), types.end(), text) != types.end()) it->second = std::move(text);
    }
    return it->second;
  };

  const Table fields(memory, libjvm, bias, "gHotSpotVMStructEntry");
  const auto type_name = fields.member("TypeName"), field_name = fields.member("FieldName"),
             type_string = fields.member("TypeString"), is_static = fields.member("IsStatic"),
             offset = fields.member("Offset"), address = fields.member("Address");
  if (!type_name || !field_name || !type_string || !is_static || !offset || !address) return std::nullopt;
  fields.each("gHotSpotVMStructs", [&](const auto& entry) {
    const uint64_t name = word_at(entry, *type_name);
    if (!name) return false;
    const std::string& type = wanted(name);
    if (type.empty()) return true;
    const bool fixed = static_cast<uint32_t>(word_at(entry, *is_static)) != 0;
    structs.fields_[type + "." + read_text(memory, word_at(entry, *field_name))] = {
        fixed, word_at(entry, fixed ? *address : *offset),
        width_of(read_text(memory, word_at(entry, *type_string)))};
    return true;
  });

  const Table sizes(memory, libjvm, bias, "gHotSpotVMTypeEntry");
  const auto sized_name = sizes.member("TypeName"), size = sizes.member("Size");
  if (!sized_name || !size) return std::nullopt;
  sizes.each("gHotSpotVMTypes", [&](const auto& entry) {
    const uint64_t name = word_at(entry, *sized_name);
    if (!name) return false;
    if (const std::string& type = wanted(name); !type.empty()) structs.sizes_[type] = word_at(entry, *size);
    return true;
  });
  if (structs.fields_.empty()) return std::nullopt;
  return structs;
}

const VmStructs::Field* VmStructs::find(std::string_view type, std::string_view field) const {
  const auto it = fields_.find(std::string(type) + "." + std::string(field));
  return it == fields_.end() ? nullptr : &it->second;
}

std::optional<uint64_t> VmStructs::offset(std::string_view type, std::string_view field) const {
  const Field* found = find(type, field);
  return found && !found->is_static && found->value < kLargest ? std::optional(found->value) : std::nullopt;
}

std::optional<unsigned> VmStructs::width(std::string_view type, std::string_view field) const {
  const Field* found = find(type, field);
  return found && found->width ? std::optional(found->width) : std::nullopt;
}

uint64_t VmStructs::address(std::string_view type, std::string_view field) const {
  const Field* found = find(type, field);
  return found && found->is_static ? found->value : 0;
}

std::optional<uint64_t> VmStructs::size(std::string_view type) const {
  const auto it = sizes_.find(type);
  return it != sizes_.end() && it->second < kLargest ? std::optional(it->second) : std::nullopt;
}

}  // namespace looptrace::hotspot
