// SPDX-License-Identifier: Apache-2.0
#include "runtimes/hotspot/method_names.h"

#include <algorithm>

#include "base/files.h"
#include "stacks/frame_origin.h"

namespace looptrace::hotspot {
namespace {

constexpr size_t kMaxName = 512;

constexpr uint16_t kHasLineTable = 1;  // in ConstMethod::_flags
// Most tables have less than a hundred bytes; how long one is, only its end tells.
constexpr size_t kUsualLineTable = 1u << 10, kMaxLineTable = 64u << 10;

int to_signed(uint32_t value) { return static_cast<int>(value >> 1) ^ -static_cast<int>(value & 1); }

}  // namespace

// Sums are unsigned: what is read may be anything.
LineLookup line_at(std::span<const uint8_t> table, int index, Unsigned5 numbers) {
  constexpr uint8_t kEnd = 0, kLong = 0xff;
  uint32_t line = 0, at = 0;
  int found = 0, found_at = -1;
  while (!table.empty() && table.front() != kEnd) {
    const uint8_t byte = table.front();
    table = table.subspan(1);
    if (byte == kLong) {
      const auto step = numbers.take(table);
      const auto lines = numbers.take(table);
      if (!step || !lines) return {found, false};
      at += static_cast<uint32_t>(to_signed(*step));
      line += static_cast<uint32_t>(to_signed(*lines));
    } else {
      at += byte >> 3;
      line += byte & 7;
    }
    if (static_cast<int>(at) <= index && static_cast<int>(at) >= found_at) {
      found = static_cast<int>(line);
      found_at = static_cast<int>(at);
    }
  }
  return {found, !table.empty()};
}

std::vector<std::string_view> MethodNames::types() {
  return {"Method", "ConstMethod", "ConstantPool", "Klass", "InstanceKlass", "Symbol"};
}

std::optional<MethodNames> MethodNames::of(const VmStructs& structs, int major) {
  MethodNames names;
  NeededFields need(structs);
  names.const_method_ = need("Method", "_constMethod");
  names.constants_ = need("ConstMethod", "_constants");
  names.name_index_ = need("ConstMethod", "_name_index");
  names.pool_size_ = structs.size("ConstantPool").value_or(0);
  names.pool_length_ = need("ConstantPool", "_length");
  names.holder_ = need("ConstantPool", "_pool_holder");
  names.pool_source_file_ = structs.offset("ConstantPool", "_source_file_name_index");
  names.class_source_file_ = structs.offset("InstanceKlass", "_source_file_name_index");
  names.flags_ = structs.offset("ConstMethod", "_flags._flags") ? need("ConstMethod", "_flags._flags")
                                                                : need("ConstMethod", "_flags");
  names.code_size_ = need("ConstMethod", "_code_size");
  names.const_method_size_ = structs.size("ConstMethod").value_or(0);
  names.numbers_ = Unsigned5::of(major);
  names.class_name_ = need("Klass", "_name");
  names.symbol_length_ = need("Symbol", "_length");
  names.symbol_body_ = need("Symbol", "_body");
  return need.all_found() && names.pool_size_ && names.const_method_size_ ? std::optional(names)
                                                                          : std::nullopt;
}

std::string MethodNames::symbol(const RemoteMemory& memory, uint64_t address) const {
  const auto length = address ? memory.get<uint16_t>(address + symbol_length_) : std::nullopt;
  if (!length) return {};
  std::string text(std::min<size_t>(*length, kMaxName), '\0');
  if (!memory.read(address + symbol_body_, text.data(), text.size())) return {};
  return to_utf8(text.size() < *length ? cut_short(text) : text);
}

std::string MethodNames::pool_symbol(const RemoteMemory& memory, uint64_t pool, uint16_t index) const {
  const int length = memory.get<int32_t>(pool + pool_length_).value_or(0);
  if (index == 0 || index >= length) return {};
  return symbol(memory, memory.pointer(pool + pool_size_ + 8 * uint64_t{index}));
}

void MethodNames::find_line(const RemoteMemory& memory, uint64_t const_method, const Bytecode& bytecode,
                            Frame& frame) const {
  const auto flags = memory.get<uint16_t>(const_method + flags_);
  const auto size = memory.get<uint16_t>(const_method + code_size_);
  if (!flags || !size || !(*flags & kHasLineTable)) return;
  const uint64_t code = const_method + const_method_size_;
  const uint64_t index = bytecode.index ? static_cast<uint64_t>(*bytecode.index) : bytecode.address - code;
  frame.at_definition = index >= *size;
  const int wanted = frame.at_definition ? 0 : static_cast<int>(index);
  LineLookup found;
  for (const size_t length : {kUsualLineTable, kMaxLineTable}) {
    std::vector<uint8_t> table(length);
    table.resize(memory.read_some(code + *size, table.data(), length));
    found = line_at(table, wanted, numbers_);
    if (found.whole || table.size() < length) break;
  }
  frame.line = std::max(found.line, 0);
  frame.at_definition = frame.at_definition && frame.line;
}

std::optional<Frame> MethodNames::frame(const RemoteMemory& memory, uint64_t method,
                                        const Bytecode& bytecode) const {
  const uint64_t const_method = memory.pointer(method + const_method_);
  const uint64_t pool = const_method ? memory.pointer(const_method + constants_) : 0;
  if (!pool) return std::nullopt;
  const auto index = memory.get<uint16_t>(const_method + name_index_);
  const std::string name = index ? pool_symbol(memory, pool, *index) : std::string();
  const uint64_t holder = memory.pointer(pool + holder_);
  std::string type = holder ? symbol(memory, memory.pointer(holder + class_name_)) : std::string();
  if (name.empty() || type.empty()) return std::nullopt;
  std::replace(type.begin(), type.end(), '/', '.');
  Frame frame;
  frame.kind = FrameKind::jit;
  frame.origin = java_origin(type);
  frame.function = type + "." + name;
  const auto file = pool_source_file_    ? memory.get<uint16_t>(pool + *pool_source_file_)
                    : class_source_file_ ? memory.get<uint16_t>(holder + *class_source_file_)
                                         : std::nullopt;
  if (file) frame.file = pool_symbol(memory, pool, *file);
  find_line(memory, const_method, bytecode, frame);
  return frame;
}

}  // namespace looptrace::hotspot
