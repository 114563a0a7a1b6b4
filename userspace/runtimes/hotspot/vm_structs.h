// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtimes/remote_memory.h"
#include "stacks/elf_object.h"

namespace looptrace::hotspot {

/// What libjvm.so tells of its own structures: the tables gHotSpotVMStructs and gHotSpotVMTypes, which it
/// exports for debuggers (jdk.hotspot.agent). Read once; only the types that are asked for are kept.
class VmStructs {
 public:
  static std::optional<VmStructs> read(const RemoteMemory& memory, ElfObject& libjvm, uint64_t bias,
                                       const std::vector<std::string_view>& types);

  /// Offset of a member in its structure. Offsets and sizes that no structure has are not told: the tables
  /// may be anyone's.
  std::optional<uint64_t> offset(std::string_view type, std::string_view field) const;
  /// Of a member that is a number: how many bytes it has, which is not the same in each version.
  std::optional<unsigned> width(std::string_view type, std::string_view field) const;
  /// Address of a static member; 0 if there is none.
  uint64_t address(std::string_view type, std::string_view field) const;
  std::optional<uint64_t> size(std::string_view type) const;

 private:
  struct Field {
    bool is_static = false;
    uint64_t value = 0;  // offset, or address
    unsigned width = 0;  // 0: no number
  };
  const Field* find(std::string_view type, std::string_view field) const;

  std::map<std::string, Field> fields_;  // "type.field"
  std::map<std::string, uint64_t, std::less<>> sizes_;
};

/// Reads what a reader cannot do without: 0 for what is not in the tables, which all_found() tells at the
/// end.
class NeededFields {
 public:
  explicit NeededFields(const VmStructs& structs) : structs_(structs) {}

  uint64_t operator()(std::string_view type, std::string_view field) {
    return found(structs_.offset(type, field));
  }
  unsigned width(std::string_view type, std::string_view field) { return found(structs_.width(type, field)); }
  uint64_t address(std::string_view type, std::string_view field) {
    const uint64_t address = structs_.address(type, field);
    all_found_ = all_found_ && address;
    return address;
  }
  bool all_found() const { return all_found_; }

 private:
  template <typename T>
  T found(const std::optional<T>& value) {
    all_found_ = all_found_ && value;
    return value.value_or(0);
  }

  const VmStructs& structs_;
  bool all_found_ = true;
};

/// A C string of another process, up to 255 bytes; empty if it cannot be read.
std::string read_text(const RemoteMemory& memory, uint64_t address);

}  // namespace looptrace::hotspot
