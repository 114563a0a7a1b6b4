// SPDX-License-Identifier: Apache-2.0
#include "record/histogram.h"

#include <algorithm>
#include <bit>

namespace looptrace {
namespace {

template <typename Count>
std::optional<Percentiles> compute(const HistogramShape& shape, std::span<const Count> counts,
                                   uint64_t recorded_max) {
  const size_t buckets = std::min(counts.size(), shape.buckets());
  uint64_t total = 0;
  size_t highest = 0;
  for (size_t i = 0; i < buckets; ++i) {
    total += counts[i];
    if (counts[i]) highest = i;
  }
  if (total == 0) return std::nullopt;

  uint64_t largest = shape.upper_bound(highest);
  if (recorded_max) largest = std::min(largest, recorded_max);
  // With no maximum recorded, all that is known of the last bucket is where it begins.
  if (largest == UINT64_MAX) largest = uint64_t{1} << shape.max_bits;

  const auto at = [&](uint64_t per_mille) {
    // ceil(total * per_mille / 1000), split so that it cannot overflow.
    const uint64_t rank = total / 1000 * per_mille + (total % 1000 * per_mille + 999) / 1000;
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets; ++i) {
      seen += counts[i];
      if (seen >= rank) return std::min(shape.upper_bound(i), largest);
    }
    return largest;
  };
  return Percentiles{at(500), at(900), at(990), at(999), largest};
}

}  // namespace

size_t HistogramShape::bucket(uint64_t value) const {
  if (value < uint64_t{1} << min_bits) return 0;
  if (value >= uint64_t{1} << max_bits) return buckets() - 1;
  const unsigned msb = static_cast<unsigned>(std::bit_width(value)) - 1;
  const uint64_t sub = (value >> (msb - sub_bits)) & ((uint64_t{1} << sub_bits) - 1);
  return (static_cast<size_t>(msb - min_bits) << sub_bits) + sub + 1;
}

uint64_t HistogramShape::upper_bound(size_t i) const {
  if (i == 0) return (uint64_t{1} << min_bits) - 1;
  if (i >= buckets() - 1) return UINT64_MAX;
  const size_t power = min_bits + ((i - 1) >> sub_bits);
  const uint64_t sub = (i - 1) & ((uint64_t{1} << sub_bits) - 1);
  const uint64_t first_of_next = ((uint64_t{1} << sub_bits) + sub + 1) << (power - sub_bits);
  return first_of_next - 1;
}

std::optional<Percentiles> percentiles(const HistogramShape& shape, std::span<const uint32_t> counts,
                                       uint64_t recorded_max) {
  return compute(shape, counts, recorded_max);
}

std::optional<Percentiles> percentiles(const HistogramShape& shape, std::span<const uint64_t> counts,
                                       uint64_t recorded_max) {
  return compute(shape, counts, recorded_max);
}

}  // namespace looptrace
