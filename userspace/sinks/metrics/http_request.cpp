// SPDX-License-Identifier: Apache-2.0
#include "sinks/metrics/http_request.h"

#include <strings.h>

#include <algorithm>

#include "base/files.h"

namespace looptrace {
namespace {

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > 0x20 && c < 0x7f &&
           std::string_view("\"(),/:;<=>?@[\\]{}").find(static_cast<char>(c)) == std::string_view::npos;
  });
}

bool is_header(std::string_view name, const char* wanted) {
  return strncasecmp(name.data(), wanted, name.size()) == 0 && wanted[name.size()] == '\0';
}

}  // namespace

std::optional<size_t> head_length(std::string_view received) {
  size_t length = std::string_view::npos;
  if (const size_t at = received.find("\r\n\r\n"); at != std::string_view::npos) length = at + 4;
  if (const size_t at = received.find("\n\n"); at != std::string_view::npos)
    length = std::min(length, at + 2);
  if (length == std::string_view::npos) return std::nullopt;
  return length;
}

Result<HttpRequest> parse_head(std::string_view head) {
  const auto lines = split(head, '\n');
  const auto parts = split(trim(lines.front()), ' ');
  if (parts.size() != 3 || !is_token(parts[0]) || !parts[2].starts_with("HTTP/1."))
    return Error{"the request line is not one of HTTP/1"};
  if (!parts[1].starts_with('/')) return Error{"the request's target is not a path"};
  HttpRequest request;
  request.method = parts[0];
  request.path = parts[1].substr(0, parts[1].find('?'));
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::string_view line = trim(lines[i]);
    if (line.empty()) continue;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon)))
      return Error{"a header line has no name"};
    if (!is_header(line.substr(0, colon), "accept")) continue;
    if (!request.accept.empty()) request.accept += ',';
    request.accept += trim(line.substr(colon + 1));
  }
  return request;
}

}  // namespace looptrace
