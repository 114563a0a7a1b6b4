// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/result.h"

namespace looptrace {

/// An http or https URL, checked and taken apart.
struct HttpUrl {
  std::string text;  ///< as it is to be requested
  std::string host;  ///< without brackets
  std::string path;  ///< with the query; empty or beginning with '/'
  bool tls = false;

  bool is_loopback() const { return host == "localhost" || host == "::1" || host.starts_with("127."); }
};

/// Fault::usage with what is wrong. User names and passwords are refused: command lines are read by all.
Result<HttpUrl> parse_http_url(const std::string& text);

}  // namespace looptrace
