// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <memory>

#include "sinks/metrics/http_server.h"
#include "sinks/metrics/metrics.h"
#include "sinks/metrics/prometheus.h"

namespace looptrace {

/// Answers /metrics and /healthz over HTTP. Lives in the server's thread; takes copies of the metrics only.
class MetricsEndpoint {
 public:
  /// `metrics` outlives it. Healthy is who has reported within `most_silent`: a tracer whose output hangs
  /// does not. A page is not written out more often than `page_life`, whoever asks.
  MetricsEndpoint(const Metrics& metrics, std::chrono::nanoseconds most_silent,
                  std::chrono::milliseconds page_life = std::chrono::milliseconds(200))
      : metrics_(metrics), most_silent_(most_silent), page_life_(page_life) {}

  HttpResponse answer(const HttpRequest& request);

 private:
  struct Page {
    std::shared_ptr<const std::string> text;
    uint64_t revision = 0;
    std::chrono::steady_clock::time_point written;
  };

  HttpResponse health() const;
  HttpResponse page(Exposition exposition);

  const Metrics& metrics_;
  const std::chrono::nanoseconds most_silent_;
  const std::chrono::milliseconds page_life_;
  std::array<Page, 2> pages_;  // by exposition
};

}  // namespace looptrace
