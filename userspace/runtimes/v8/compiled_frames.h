// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtimes/v8/bytecodes.h"
#include "runtimes/v8/compiled_code.h"
#include "runtimes/v8/function_cache.h"
#include "runtimes/v8/heap.h"
#include "runtimes/v8/source_positions.h"

namespace looptrace::v8 {

/// What V8 keeps of optimized code to leave it, as far as it is wanted here.
struct Deoptimization {
  uint64_t shared = 0;  ///< the SharedFunctionInfo whose code it is
  uint64_t literals = 0, inlinings = 0;
  int exits_start = 0, eager = 0;  ///< the exits lie behind the code, first the eager ones
  std::vector<int64_t> calls;      ///< one of each other exit: where it returns

  /// Where the call returns whose frame is at `offset`; nothing if there is no such call.
  std::optional<int64_t> call(int64_t offset) const;
  /// The last position before a call is that call's.
  bool is_own(const PositionEntry& entry, int64_t call) const;
};

/// Names frames of code that V8 compiled: of baseline code the bytecode is known everywhere, of optimized
/// code the position of each call, and into which functions' inlined code it belongs.
class CompiledFrames {
 public:
  CompiledFrames(Heap& heap, FunctionCache& functions, const BytecodeSizes& sizes)
      : heap_(heap), finder_(heap), functions_(functions), sizes_(sizes) {}

  /// The frame at `pc` and those that it was inlined into, innermost first. `returns`: pc is a return
  /// address. The function's definition alone where no more is known; empty if it is not that function by
  /// now.
  std::vector<SharedFrame> name(const lt_v8_frame& frame, uint64_t pc, bool returns);

 private:
  struct Known {
    CompiledCode code;
    uint64_t shared;
    std::vector<SharedFrame> names;
  };

  std::optional<Deoptimization> deoptimization(uint64_t object);
  std::vector<SharedFrame> look_up(const lt_v8_frame& frame, const CompiledCode& code, uint64_t pc,
                                   bool returns);
  std::vector<SharedFrame> optimized(const lt_v8_frame& frame, const CompiledCode& code, uint64_t offset);
  std::optional<int> bytecode_offset(const CompiledCode& code, uint64_t offset, bool returns);

  Heap& heap_;
  CodeFinder finder_;
  FunctionCache& functions_;
  const BytecodeSizes& sizes_;
  std::unordered_map<uint64_t, Known> returns_;  // by return address
};

}  // namespace looptrace::v8
