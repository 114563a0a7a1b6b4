// SPDX-License-Identifier: Apache-2.0
#include "trace/side_outputs.h"

#include "sinks/otlp/http_transport.h"

namespace looptrace {
namespace {

// A report comes each interval; a busy host may keep it a while.
std::chrono::nanoseconds most_silent(uint64_t interval_ns) {
  return std::chrono::nanoseconds(interval_ns) * 3 + std::chrono::seconds(5);
}

}  // namespace

Result<std::unique_ptr<SideOutputs>> SideOutputs::open(const SideOptions& options) {
  std::unique_ptr<SideOutputs> outputs(new SideOutputs);
  if (options.metrics) {
    outputs->endpoint_ =
        std::make_unique<MetricsEndpoint>(outputs->metrics_, most_silent(options.interval_ns));
    auto server = HttpServer::listen(*options.metrics, HttpLimits(),
                                     [endpoint = outputs->endpoint_.get()](const HttpRequest& request) {
                                       return endpoint->answer(request);
                                     });
    if (!server) return server.error();
    outputs->server_ = std::move(*server);
  }
  if (!options.textfile.empty()) {
    outputs->textfile_ = std::make_unique<TextfileSink>(outputs->metrics_, options.textfile);
    if (auto written = write_textfile(options.textfile, ""); !written) return written.error();
  }
  if (options.otlp) {
    auto transport = HttpTransport::open(*options.otlp);
    if (!transport) return transport.error();
    outputs->otlp_ = std::make_unique<OtlpSink>(
        std::make_unique<OtlpExporter>(std::move(*transport), OtlpExporter::Limits(), options.version),
        options.host);
  }
  return outputs;
}

Sink& SideOutputs::exporting(Sink& next) {
  if (!otlp_) return next;
  exporting_ = std::make_unique<TeeSink>(next, std::vector<SideSink*>{otlp_.get()});
  return *exporting_;
}

Sink& SideOutputs::counting(Sink& next, std::vector<Lossy*> lossy) {
  std::vector<SideSink*> sides{&metrics_};
  if (textfile_) sides.push_back(textfile_.get());
  if (otlp_) lossy.push_back(otlp_.get());
  counting_ = std::make_unique<TeeSink>(next, std::move(sides), std::move(lossy));
  return *counting_;
}

std::optional<ListenAddress> SideOutputs::listening() const {
  if (!server_) return std::nullopt;
  return server_->address();
}

}  // namespace looptrace
