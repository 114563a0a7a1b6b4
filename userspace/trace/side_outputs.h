// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/listen_address.h"
#include "base/result.h"
#include "sinks/metrics/endpoint.h"
#include "sinks/metrics/textfile.h"
#include "sinks/tee.h"

namespace looptrace {

struct SideOptions {
  std::optional<ListenAddress> metrics;
  std::string textfile;  ///< empty = none
  uint64_t interval_ns = 0;

  bool any() const { return metrics || !textfile.empty(); }
};

/// What a trace writes to beside its records: the metrics endpoint, the textfile.
class SideOutputs {
 public:
  /// Opens all of them: what cannot be had is told before anything is traced.
  static Result<std::unique_ptr<SideOutputs>> open(const SideOptions& options);

  /// In front of `next`, which outlives this: counts all that goes there. It belongs before any sampling.
  Sink& counting(Sink& next);
  Metrics& metrics() { return metrics_; }
  /// Where metrics are served, if they are.
  std::optional<ListenAddress> listening() const;

 private:
  SideOutputs() = default;

  Metrics metrics_;
  std::unique_ptr<MetricsEndpoint> endpoint_;
  std::unique_ptr<HttpServer> server_;  // calls the endpoint
  std::unique_ptr<TextfileSink> textfile_;
  std::unique_ptr<TeeSink> counting_;
};

}  // namespace looptrace
