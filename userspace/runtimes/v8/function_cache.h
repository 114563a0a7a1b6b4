// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "looptrace.h"
#include "runtimes/runtime.h"
#include "runtimes/v8/heap.h"
#include "runtimes/v8/script_cache.h"

namespace looptrace::v8 {

/// What is kept of one function: all of its frames that were named.
struct Function {
  uint64_t address = 0;                              ///< of its SharedFunctionInfo
  uint64_t scope = 0, script_address = 0, tail = 0;  ///< members that tell it from another at this address
  std::string name;
  int start = 0, end = 0;
  std::shared_ptr<Script> script;
  std::unordered_map<int, SharedFrame> frames;     ///< by bytecode offset
  std::unordered_map<int, SharedFrame> positions;  ///< by position in the script

  size_t bytes() const { return 400 + name.capacity() + (frames.size() + positions.size()) * 300; }
};

/// Functions by address, each looked at anew whenever it is asked for: the collector moves functions, and
/// puts others in their places. Least recently used ones go when there are more than 16384 or when they hold
/// more than 8 MiB. Not thread-safe.
class FunctionCache {
 public:
  explicit FunctionCache(Heap& heap) : heap_(heap), scripts_(heap) {}

  /// The function of a captured frame. Null if there is none at its address now, or not the one that was
  /// there when it was captured, or one without a script (V8's own).
  Function* find(const lt_v8_frame& frame);

  /// Its frame at `offset` of `bytecodes`; at its definition where `offset` is kDefinition or has no
  /// position.
  static constexpr int kDefinition = -1;
  SharedFrame frame(Function& function, uint64_t bytecodes, int offset);

  /// Its frame at a position of its script; at its definition where that is not one within the function.
  SharedFrame frame_at(Function& function, int position);

 private:
  void evict();

  Heap& heap_;
  ScriptCache scripts_;
  std::list<Function> order_;  // most recently used first
  std::unordered_map<uint64_t, std::list<Function>::iterator> index_;
  size_t bytes_ = 0;
};

}  // namespace looptrace::v8
