// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/http_url.h"
#include "base/listen_address.h"
#include "base/result.h"
#include "sinks/metrics/endpoint.h"
#include "sinks/metrics/textfile.h"
#include "sinks/otlp/otlp_sink.h"
#include "sinks/tee.h"

namespace looptrace {

struct SideOptions {
  std::optional<ListenAddress> metrics;
  std::string textfile;  ///< empty = none
  std::optional<HttpUrl> otlp;
  uint64_t interval_ns = 0;
  HostInfo host;
  std::string version;

  bool any() const { return metrics || !textfile.empty() || otlp; }
};

/// What a trace writes to beside its records: the metrics endpoint, the textfile, the exporter.
class SideOutputs {
 public:
  /// Opens all of them: what cannot be had is told before anything is traced.
  static Result<std::unique_ptr<SideOutputs>> open(const SideOptions& options);

  /// In front of `next`, which outlives the trace: sends what goes there to the collector too, if there is
  /// one. It belongs behind sampling and redaction. To be called once a trace, as is counting().
  Sink& exporting(Sink& next);
  /// In front of `next`, which outlives the trace: counts all that goes there. It belongs before any
  /// sampling. What the exporter and those in `lossy` lose is told here.
  Sink& counting(Sink& next, std::vector<Lossy*> lossy = {});
  /// The last summary that comes next is that of a trace that another one follows, with the same outputs.
  void stay_open() {
    if (otlp_) otlp_->stay_open();
  }
  Metrics& metrics() { return metrics_; }
  /// Where metrics are served, if they are.
  std::optional<ListenAddress> listening() const;

 private:
  SideOutputs() = default;

  Metrics metrics_;
  std::unique_ptr<MetricsEndpoint> endpoint_;
  std::unique_ptr<HttpServer> server_;  // calls the endpoint
  std::unique_ptr<TextfileSink> textfile_;
  std::unique_ptr<OtlpSink> otlp_;
  std::unique_ptr<TeeSink> exporting_, counting_;
};

}  // namespace looptrace
