// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>

#include "runtimes/v8/heap.h"

namespace looptrace::v8 {

/// Machine code that V8 made of a function: baseline code, of one bytecode after the other, or optimized
/// code, with that of other functions inlined.
struct CompiledCode {
  uint64_t object = 0;     ///< its Code
  uint64_t start = 0;      ///< where the instructions begin
  uint32_t size = 0;       ///< of the instructions
  uint64_t made_from = 0;  ///< baseline: its BytecodeArray; optimized: its deoptimization data
  uint64_t positions = 0;  ///< a byte array: where each bytecode ends, or source positions

  bool operator==(const CompiledCode&) const = default;
};

/// Finds the code around an address. Whatever the function runs by now, older code may still be on the stack,
/// and code that was entered in mid-loop is not the function's at all: so it is found by where it lies. In
/// front of its instructions is a header whose first word is always the same.
class CodeFinder {
 public:
  explicit CodeFinder(Heap& heap) : heap_(heap) {}

  /// Nothing where no such code lies there now.
  std::optional<CompiledCode> find(uint64_t pc);

 private:
  std::optional<CompiledCode> read(uint64_t start);

  Heap& heap_;
  uint64_t header_map_ = 0;  // once seen
  // Pages without code up to some address, as V8's builtins are: not to be searched each time.
  std::unordered_map<uint64_t, uint64_t> empty_;
  uint32_t searches_ = 0;
};

}  // namespace looptrace::v8
