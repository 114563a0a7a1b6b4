// SPDX-License-Identifier: Apache-2.0
#include "base/http_url.h"

#include <arpa/inet.h>
#include <strings.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace looptrace {
namespace {

constexpr unsigned kMostPort = 65535;

Error wrong(const std::string& text, const char* why) {
  return Error{'\'' + text + "' " + why + ": a URL as in http://127.0.0.1:4318 or https://otel.example.com",
               0, Fault::usage};
}

bool is_port(std::string_view text) {
  unsigned port = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), port);
  return failed == std::errc() && end == text.data() + text.size() && port >= 1 && port <= kMostPort;
}

bool is_host(const std::string& host, bool in_brackets) {
  if (in_brackets) {
    in6_addr address{};
    return inet_pton(AF_INET6, host.c_str(), &address) == 1;
  }
  return !host.empty() && std::all_of(host.begin(), host.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '.' || c == '_';
  });
}

}  // namespace

Result<HttpUrl> parse_http_url(const std::string& text) {
  HttpUrl url;
  size_t scheme = 0;
  if (strncasecmp(text.c_str(), "http://", 7) == 0) scheme = 7;
  if (strncasecmp(text.c_str(), "https://", 8) == 0) scheme = 8;
  if (!scheme) return wrong(text, "does not begin with http:// or https://");
  url.tls = scheme == 8;
  if (std::any_of(text.begin(), text.end(), [](unsigned char c) { return c <= 0x20 || c >= 0x7f; }))
    return wrong(text, "holds blanks or characters that must be percent-encoded");
  if (text.find('#') != std::string::npos) return wrong(text, "holds a fragment");
  const size_t end = std::min(text.find_first_of("/?", scheme), text.size());
  std::string authority = text.substr(scheme, end - scheme);
  url.path = text.substr(end);
  if (url.path.starts_with('?')) return wrong(text, "has a query and no path");
  if (authority.find('@') != std::string::npos) {
    return Error{
        "a URL with a user name or password is refused, since command lines are read by all: put the "
        "credentials into OTEL_EXPORTER_OTLP_HEADERS",
        0, Fault::usage};
  }
  const bool in_brackets = authority.starts_with('[');
  const size_t host_end = in_brackets ? authority.find(']') : authority.find(':');
  if (in_brackets && host_end == std::string::npos) return wrong(text, "has a bracket that does not close");
  const size_t after = std::min(host_end, authority.size()) + (in_brackets ? 1 : 0);
  url.host = authority.substr(in_brackets ? 1 : 0, after - (in_brackets ? 2 : 0));
  std::string rest = authority.substr(after);
  if (!is_host(url.host, in_brackets)) return wrong(text, "names no host");
  if (!rest.empty() && (!rest.starts_with(':') || !is_port(std::string_view(rest).substr(1))))
    return wrong(text, "has a port that is none");
  url.text = text;
  return url;
}

}  // namespace looptrace
