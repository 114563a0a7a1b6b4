// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "runtimes/remote_memory.h"

namespace looptrace::v8 {

/// The interpreter's bytecode handlers, by its dispatch table. Between two calls a handler keeps the offset
/// of its bytecode in a register only (r9, at first), and the frame's slot tells an earlier one: which of the
/// two holds is told by the handler that runs, since it must be that of the bytecode there.
class Handlers {
 public:
  /// Reads the dispatch table at `table` if it looks like one whose handlers lie around `pc`. Once found it
  /// is kept: handlers do not move. `table` is what r15 holds when a handler begins.
  void learn(const RemoteMemory& memory, uint64_t table, uint64_t pc);

  /// `pc` lies in the handler of `opcode`, of any operand width. False while the table is not known.
  bool runs(uint8_t opcode, uint64_t pc) const;

 private:
  std::vector<uint64_t> table_;   // by opcode, for each of the three operand widths
  std::vector<uint64_t> starts_;  // the same, sorted
};

}  // namespace looptrace::v8
