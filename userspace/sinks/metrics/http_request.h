// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace looptrace {

/// What of a request the endpoint looks at.
struct HttpRequest {
  std::string method;
  std::string path;    ///< without the query
  std::string accept;  ///< all Accept headers, joined by commas
};

/// Length of the head, its empty line included; nothing while that has not come.
std::optional<size_t> head_length(std::string_view received);

/// A whole head of HTTP/1.0 or 1.1. The error is for whoever sent it.
Result<HttpRequest> parse_head(std::string_view head);

}  // namespace looptrace
