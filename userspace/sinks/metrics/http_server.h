// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/fd.h"
#include "base/listen_address.h"
#include "base/result.h"
#include "base/wake_up.h"
#include "sinks/metrics/http_request.h"

namespace looptrace {

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::shared_ptr<const std::string> body;  ///< shared, so that many slow readers hold one copy
};

/// What one server gives its clients at most.
struct HttpLimits {
  size_t connections = 32;
  size_t head_bytes = 8192;
  std::chrono::milliseconds read{5000};    ///< from connecting to the end of the request's head
  std::chrono::milliseconds write{10000};  ///< from there to the last byte of the response
  std::chrono::milliseconds linger{500};   ///< from there until the client hangs up
};

/// A small HTTP server for answers that are ready at once: one thread, one poll() over its connections, one
/// request a connection. It never waits for a client; one that is late is cut off. Where all connections are
/// in use, the one that has kept its request back the longest makes way, so that slow clients do not lock out
/// others.
class HttpServer {
 public:
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  /// Listens at once; answers from then on, in a thread of its own, which calls `handler`.
  static Result<std::unique_ptr<HttpServer>> listen(const ListenAddress& address, HttpLimits limits,
                                                    Handler handler);
  ~HttpServer();

  /// With the port that was found, where 0 was asked for.
  const ListenAddress& address() const { return address_; }

 private:
  struct Connection;
  class Loop;

  HttpServer(UniqueFd listener, ListenAddress address, HttpLimits limits, Handler handler);

  UniqueFd listener_;
  ListenAddress address_;
  HttpLimits limits_;
  Handler handler_;
  WakeUp wake_;
  std::jthread thread_;
};

}  // namespace looptrace
