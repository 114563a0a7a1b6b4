// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "runtimes/v8/heap.h"

namespace looptrace::v8 {

/// The positions of a text's line ends, as V8 counts lines: \n, \r, \r\n, and in two-byte text U+2028 and
/// U+2029. The text's own end counts as one.
class LineEnds {
 public:
  LineEnds() = default;
  explicit LineEnds(std::vector<uint32_t> ends) : ends_(std::move(ends)) {}

  /// 0-based line and column of a position; nothing beyond the end.
  struct Place {
    int line, column;
  };
  std::optional<Place> find(int position) const;

  size_t lines() const { return ends_.size(); }
  size_t bytes() const { return ends_.capacity() * sizeof(uint32_t); }

 private:
  std::vector<uint32_t> ends_;
};

/// Appends the ends in one piece of a text that begins at `position`. `pending_return`: the piece before
/// ended with \r.
template <typename Character>
void scan_line_ends(std::span<const Character> piece, uint32_t position, bool& pending_return,
                    std::vector<uint32_t>& ends);

/// The line ends of a script: V8's own if it has counted them, else counted in its source. Empty if neither
/// can be read or the source has more than 32 Mi characters.
LineEnds read_line_ends(Heap& heap, uint64_t line_ends, uint64_t source);

}  // namespace looptrace::v8
