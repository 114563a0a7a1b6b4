// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "record/other_records.h"

namespace looptrace {

/// A log-linear histogram: bucket 0 holds values below 2^min_bits, the last those from 2^max_bits on, and
/// in between each power of two has 2^sub_bits buckets of equal width.
struct HistogramShape {
  unsigned min_bits = 8;
  unsigned sub_bits = 3;
  unsigned max_bits = 40;

  size_t buckets() const { return (static_cast<size_t>(max_bits - min_bits) << sub_bits) + 2; }
  size_t bucket(uint64_t value) const;
  /// The largest value that falls into bucket `i`; UINT64_MAX for the last.
  uint64_t upper_bound(size_t i) const;
};

/// Nearest-rank percentiles: of each the upper bound of its bucket, never above the largest value.
/// `recorded_max` may be of a longer time than the counts (0 = not known): the largest value is then bounded
/// by the highest bucket in use. std::nullopt if nothing was counted. Counts beyond the shape are ignored.
std::optional<Percentiles> percentiles(const HistogramShape& shape, std::span<const uint32_t> counts,
                                       uint64_t recorded_max);
std::optional<Percentiles> percentiles(const HistogramShape& shape, std::span<const uint64_t> counts,
                                       uint64_t recorded_max);

}  // namespace looptrace
