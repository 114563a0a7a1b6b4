// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace looptrace {

/// What a record leaves out to become shorter. Names of what was cut go into the record's `truncated`.
using Truncated = std::vector<const char*>;

/// One step of a ladder: makes `cuts` harsher and returns true, or returns false if that would cut nothing.
template <typename Cuts>
struct CutStep {
  const char* name;
  bool (*apply)(Cuts& cuts);
};

/// Renders `line` with as few of the steps as make it fit `limit` bytes. `render(line, cuts, truncated)`
/// replaces the line; it may note in `cuts` what the next step needs to know.
template <typename Cuts, typename Render>
void fit_line(std::string& line, size_t limit, Cuts cuts, std::span<const CutStep<Cuts>> steps,
              Render render) {
  Truncated truncated;
  render(line, cuts, truncated);
  for (const CutStep<Cuts>& step : steps) {
    if (line.size() <= limit) return;
    if (!step.apply(cuts)) continue;
    const auto same = [&](std::string_view name) { return name == step.name; };
    if (std::none_of(truncated.begin(), truncated.end(), same)) truncated.push_back(step.name);
    render(line, cuts, truncated);
  }
}

/// Cuts the texts of a record to `limit` bytes, if any is longer.
template <typename Cuts>
bool shorten_texts(Cuts& cuts, size_t limit) {
  if (cuts.longest_text <= limit) return false;
  cuts.text_limit = limit;
  return true;
}

}  // namespace looptrace
