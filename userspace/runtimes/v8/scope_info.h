// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "runtimes/v8/heap.h"

namespace looptrace::v8 {

/// What a function's ScopeInfo tells: V8 keeps name and place of a compiled function there.
struct ScopeInfo {
  uint64_t name = 0;       ///< a string; 0 if the function has none
  uint64_t inferred = 0;   ///< what V8 made up for a function without a name; 0 if nothing
  int start = 0, end = 0;  ///< positions in the script, from the parameters' parenthesis on
};

/// Nothing if it is no ScopeInfo, or one that contradicts itself.
std::optional<ScopeInfo> read_scope_info(Heap& heap, uint64_t object);

}  // namespace looptrace::v8
