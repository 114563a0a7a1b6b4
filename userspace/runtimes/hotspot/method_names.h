// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "record/frame.h"
#include "runtimes/hotspot/unsigned5.h"
#include "runtimes/hotspot/vm_structs.h"
#include "runtimes/remote_memory.h"

namespace looptrace::hotspot {

/// Where in a method: by the address of its bytecode, by that bytecode's index, or not known.
struct Bytecode {
  uint64_t address = 0;
  std::optional<int> index;
};

/// Names of Java methods by their Method*, which lies in metaspace and does not move.
class MethodNames {
 public:
  static std::vector<std::string_view> types();
  static std::optional<MethodNames> of(const VmStructs& structs, int major);

  /// "com.example.Orders.reserve", its file and origin; nothing if there is no method at that address. The
  /// line is that of `bytecode`; where that is none of the method's, the one that the method begins at.
  std::optional<Frame> frame(const RemoteMemory& memory, uint64_t method, const Bytecode& bytecode) const;

 private:
  void find_line(const RemoteMemory& memory, uint64_t const_method, const Bytecode& bytecode,
                 Frame& frame) const;
  std::string symbol(const RemoteMemory& memory, uint64_t address) const;
  std::string pool_symbol(const RemoteMemory& memory, uint64_t pool, uint16_t index) const;

  uint64_t const_method_ = 0, constants_ = 0, name_index_ = 0;              // Method, ConstMethod
  uint64_t pool_size_ = 0, pool_length_ = 0, holder_ = 0, class_name_ = 0;  // ConstantPool, Klass
  std::optional<uint64_t> pool_source_file_, class_source_file_;            // from JDK 15 on, and before
  uint64_t symbol_length_ = 0, symbol_body_ = 0;
  uint64_t flags_ = 0, code_size_ = 0, const_method_size_ = 0;
  Unsigned5 numbers_;
};

struct LineLookup {
  int line = 0;        ///< 0 if the table tells none
  bool whole = false;  ///< the table's end was met: more of it would tell nothing else
};

/// The line at `index` of a method's bytecodes by its compressed line table (CompressedLineNumberReadStream).
LineLookup line_at(std::span<const uint8_t> table, int index, Unsigned5 numbers);

}  // namespace looptrace::hotspot
