// SPDX-License-Identifier: Apache-2.0
#include "sinks/metrics/endpoint.h"

namespace looptrace {
namespace {

HttpResponse plain(int status, std::string text) {
  return {status, "text/plain; charset=utf-8", std::make_shared<const std::string>(std::move(text))};
}

}  // namespace

HttpResponse MetricsEndpoint::health() const {
  const auto silent = metrics_.silent_for();
  if (silent <= most_silent_) return plain(200, "ok\n");
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(silent).count();
  return plain(503, "no report for " + std::to_string(seconds) + " s: is the output blocked?\n");
}

HttpResponse MetricsEndpoint::page(Exposition exposition) {
  Page& page = pages_[static_cast<size_t>(exposition)];
  const auto now = std::chrono::steady_clock::now();
  const uint64_t revision = metrics_.revision();  // before the copy, which may be newer
  if (!page.text || (page.revision != revision && now - page.written >= page_life_)) {
    page = {std::make_shared<const std::string>(write_metrics(metrics_.copy(), exposition)), revision, now};
  }
  return {200, content_type(exposition), page.text};
}

HttpResponse MetricsEndpoint::answer(const HttpRequest& request) {
  if (request.path == "/metrics") return page(choose_exposition(request.accept));
  if (request.path == "/healthz") return health();
  if (request.path == "/") return plain(200, "looptrace\n/metrics  Prometheus\n/healthz  is it alive\n");
  return plain(404, "there are /metrics and /healthz here\n");
}

}  // namespace looptrace
