// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/scope_info.h"

#include <array>
#include <cstddef>

namespace looptrace::v8 {
namespace {

// Bits of ScopeFlags (scope-info.tq): the lower 16 are the same from 10.2 to 13.6.
constexpr uint32_t kScopeType = 0xf;
constexpr uint32_t kSavedClassVariable = 1u << 10;
constexpr uint32_t kFunctionVariable = 3u << 12;
constexpr uint32_t kInferredName = 1u << 14;

// kScopeInfoMaxInlinedLocalNamesSize: with more variables the names are in one table.
constexpr int32_t kMaxInlinedNames = 75;
constexpr int32_t kMaxVariables = 1 << 16;

}  // namespace

std::optional<ScopeInfo> read_scope_info(Heap& heap, uint64_t object) {
  const Layout& layout = heap.layout();
  std::array<uint64_t, 6> head;  // map, flags, parameters, variables, and from 13.6 on start and end
  if (!heap.read(object, layout.type.scope, head.data(), sizeof head)) return std::nullopt;
  const auto flags = static_cast<uint32_t>(layout.scope.flags_are_smi ? head[1] >> 32 : head[1]);
  const int32_t variables = to_int(head[3]);
  if (!is_smi(head[3]) || variables < 0 || variables > kMaxVariables) return std::nullopt;

  int64_t at = layout.scope.first;
  if ((flags & kScopeType) == layout.scope.module_type) at += 8;
  at += 8 * int64_t{variables < kMaxInlinedNames ? variables : 1};  // names
  at += 8 * int64_t{variables};                                     // properties
  if (flags & kSavedClassVariable) at += 8;

  std::array<uint64_t, 5> tail;  // name and its slot, inferred name, start, end
  if (!heap.memory().read(object - 1 + static_cast<uint64_t>(at), tail.data(), sizeof tail))
    return std::nullopt;
  size_t next = 0;
  ScopeInfo info;
  if (flags & kFunctionVariable) {
    if (is_object(tail[0])) info.name = tail[0];
    next += 2;
  }
  if (flags & kInferredName) {
    if (is_object(tail[next])) info.inferred = tail[next];
    next += 1;
  }
  const uint64_t start = layout.scope.positions_first ? head[4] : tail[next];
  const uint64_t end = layout.scope.positions_first ? head[5] : tail[next + 1];
  if (!is_smi(start) || !is_smi(end)) return std::nullopt;
  info.start = to_int(start);
  info.end = to_int(end);
  if (info.start < 0 || info.end < info.start) return std::nullopt;
  return info;
}

}  // namespace looptrace::v8
