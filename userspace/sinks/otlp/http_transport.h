// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "base/http_url.h"
#include "sinks/otlp/exporter.h"

namespace looptrace {

/// POSTs JSON over http or https by libcurl, which is loaded when it is first needed: without --otlp,
/// looptrace does without it and all that hangs on it. Follows no redirect. Headers of
/// OTEL_EXPORTER_OTLP_HEADERS
/// ("key=value,key=value", percent-encoded) are sent, the certificate authorities of
/// OTEL_EXPORTER_OTLP_CERTIFICATE (a file) are trusted.
class HttpTransport : public OtlpTransport {
 public:
  /// A URL without a path is a collector's base: /v1/logs is added. Fault::unsupported if there is no
  /// libcurl.
  static Result<std::unique_ptr<HttpTransport>> open(const HttpUrl& url);
  ~HttpTransport() override;

  OtlpAnswer post(const std::string& request, const std::atomic<bool>& abort) override;

 private:
  struct Curl;
  explicit HttpTransport(std::unique_ptr<Curl> curl);

  std::unique_ptr<Curl> curl_;
};

/// "key=value,key=value" as header lines. Fault::usage if it is not that.
Result<std::vector<std::string>> parse_otlp_headers(const std::string& text);

/// What an answer of this status and body means.
OtlpAnswer judge_answer(long status, const std::string& body, const std::string& url);

}  // namespace looptrace
