// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "sinks/metrics/state.h"

namespace looptrace {

enum class Exposition {
  text,         ///< Prometheus text format 0.0.4
  openmetrics,  ///< OpenMetrics 1.0, with exemplars that name the stall
};

/// What an HTTP client of this Accept header gets. Text, unless it takes OpenMetrics at least as gladly.
Exposition choose_exposition(std::string_view accept);
const char* content_type(Exposition exposition);

/// All metrics, without timestamps. Both formats have the same series: same names, labels and bounds. Times
/// are seconds, printed exactly. What is not known (BPF run time, with the kernel's statistics off) is
/// absent.
std::string write_metrics(const MetricsState& state, Exposition exposition);

}  // namespace looptrace
