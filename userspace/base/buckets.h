// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace looptrace {

/// Of `count` places between 0 and `highest`, dealt into buckets by `place >> shift`: the shift that leaves
/// some eight in each, on average.
inline uint32_t bucket_shift(uint64_t highest, size_t count) {
  uint32_t shift = 0;
  while ((highest >> shift) > count / 8) ++shift;
  return shift;
}

}  // namespace looptrace
