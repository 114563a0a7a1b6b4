// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "stacks/elf_object.h"

namespace looptrace::v8 {

/// How long V8's bytecodes are, as its own binary tells (Bytecodes::kBytecodeSizes): enough to step through a
/// BytecodeArray.
class BytecodeSizes {
 public:
  BytecodeSizes() = default;
  /// `sizes`: for each of the three operand widths the size of each bytecode.
  explicit BytecodeSizes(std::span<const uint8_t> sizes);
  static BytecodeSizes of(ElfObject& node);

  bool known() const { return !sizes_[0].empty(); }

  /// Calls `visit(offset, opcode)` for each bytecode in its order, until it says false. `offset` is that of
  /// its prefix, if it has one. Ends at the first byte that is no bytecode.
  void walk(std::span<const uint8_t> code,
            const std::function<bool(int offset, uint8_t opcode)>& visit) const;

 private:
  std::array<std::vector<uint8_t>, 3> sizes_;
};

}  // namespace looptrace::v8
