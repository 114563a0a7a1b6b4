// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "sinks/otlp/http_transport.h"

namespace looptrace {
namespace {

constexpr size_t kLongestQuote = 200;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0;
    if (escape) {
      out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// What a server says of itself, fit for one line of ours.
std::string quote(const std::string& body) {
  std::string text = to_utf8(std::string_view(body).substr(0, kLongestQuote));
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return std::string(trim(text));
}

// {"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"..."}}
void read_partial_success(const std::string& body, OtlpAnswer& answer, const std::string& url) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (!json.is_object() || !json.contains("partialSuccess") || !json["partialSuccess"].is_object()) return;
  const auto& partial = json["partialSuccess"];
  if (const auto n = partial.find("rejectedLogRecords"); n != partial.end()) {
    if (n->is_number_unsigned()) answer.rejected = n->get<uint64_t>();
    if (n->is_string())
      answer.rejected = std::strtoull(n->get_ref<const std::string&>().c_str(), nullptr, 10);
  }
  const auto message = partial.find("errorMessage");
  if (answer.rejected && message != partial.end() && message->is_string())
    answer.what = url + " rejected records: " + quote(message->get_ref<const std::string&>());
}

}  // namespace

Result<std::vector<std::string>> parse_otlp_headers(const std::string& text) {
  std::vector<std::string> headers;
  for (const std::string_view part : split(text, ',')) {
    const std::string_view pair = trim(part);
    if (pair.empty()) continue;
    const size_t equals = pair.find('=');
    const std::string name(trim(pair.substr(0, equals)));
    const std::string value =
        equals == std::string_view::npos ? "" : percent_decoded(trim(pair.substr(equals + 1)));
    const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
    if (equals == std::string_view::npos || name.empty() || name.find_first_of(": \t") != std::string::npos ||
        std::any_of(name.begin(), name.end(), is_control) ||
        std::any_of(value.begin(), value.end(), is_control)) {
      // Not quoted: it is there to hold secrets.
      return Error{
          "OTEL_EXPORTER_OTLP_HEADERS is not a list of headers, as in Authorization=Bearer%20TOKEN,X-Scope=1",
          0, Fault::usage};
    }
    headers.push_back(name + ": " + value);
  }
  return headers;
}

OtlpAnswer judge_answer(long status, const std::string& body, const std::string& url) {
  OtlpAnswer answer;
  if (status >= 200 && status < 300) {
    answer.kind = OtlpAnswer::Kind::accepted;
    read_partial_success(body, answer, url);
    return answer;
  }
  const bool again = status == 429 || status == 502 || status == 503 || status == 504;
  answer.kind = again ? OtlpAnswer::Kind::retry : OtlpAnswer::Kind::refused;
  answer.what = url + " answered " + std::to_string(status);
  if (const std::string said = quote(body); !said.empty()) answer.what += ": " + said;
  return answer;
}

}  // namespace looptrace
