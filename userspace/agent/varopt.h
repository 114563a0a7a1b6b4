// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace looptrace {

/// What an item of a sample stands for, as a size. `size` is its own; `adjusted` begins as that and grows
/// when others go.
struct VarOptSize {
  double size = 0;
  double adjusted = 0;
  double weight() const { return adjusted / size; }  ///< how many items of its like it stands for
};

/// One step of VarOpt (Cohen, Duffield, Kaplan, Lund, Thorup, arXiv:0803.0473): of n items, ascending by
/// adjusted size, one has to go. Item i stays with the probability min(1, adjusted_i / t), for the t that
/// makes these add up to n - 1; the small ones (below t) that stay then stand for t. Returns the place of the
/// one that goes; `coin` is uniform in [0, 1). n is two at least.
///
/// The sum of adjusted sizes does not change, and nobody's expectation does: whichever items are put to the
/// vote, for whatever reason that the present sample gives, sums of weight over any subset stay unbiased, and
/// so do sums of weight x anything of the items. Priority sampling is simpler, but its total is not exact,
/// and one item alone has no finite variance.
inline size_t varopt_drop(const std::vector<VarOptSize*>& items, double coin) {
  double sum = items[0]->adjusted + items[1]->adjusted;
  size_t small = 2;
  while (small < items.size() && items[small]->adjusted * static_cast<double>(small - 1) < sum)
    sum += items[small++]->adjusted;
  const double threshold = sum / static_cast<double>(small - 1);
  // The chances to go, 1 - adjusted / threshold, add up to one.
  size_t victim = 0;
  for (; victim + 1 < small; ++victim) {
    const double chance = 1 - items[victim]->adjusted / threshold;
    if (coin < chance) break;
    coin -= chance;
  }
  for (size_t i = 0; i < small; ++i) items[i]->adjusted = threshold;
  return victim;
}

}  // namespace looptrace
