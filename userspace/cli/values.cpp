// SPDX-License-Identifier: Apache-2.0
#include "cli/values.h"

#include <cctype>
#include <limits>
#include <string_view>

#include "base/files.h"
#include "cli/units.h"

namespace looptrace {
namespace {

constexpr uint64_t kLeastThreshold = 100'000;
constexpr uint64_t kMostPid = 4'194'304;  // PID_MAX_LIMIT of 64-bit kernels
constexpr uint64_t kLeastMaxLine = 1024, kMostMaxLine = 16u << 20;
constexpr uint64_t kLeastRing = 64u << 10, kMostRing = 1u << 30;

Error usage(std::string what) { return Error{std::move(what), 0, Fault::usage}; }

std::string in_quotes(std::string_view text) { return '\'' + std::string(text) + '\''; }

}  // namespace

Result<uint32_t> parse_pid(const std::string& text) {
  const auto pid = parse_number(text, 1, kMostPid);
  if (!pid) {
    return usage(in_quotes(text) +
                 " is not a process or thread id: a whole number above 0, as in 4711 (names: --comm)");
  }
  return static_cast<uint32_t>(*pid);
}

Result<std::string> parse_name(const std::string& text) {
  if (trim(text).empty()) return usage("is empty; give a name or a glob, as in 'web-*'");
  return text;
}

Result<std::string> parse_file(const std::string& text) {
  if (trim(text).empty()) return usage("is empty; give the name of a file, as in stalls.jsonl");
  return text;
}

Result<std::string> parse_cgroup(const std::string& text) {
  if (!text.starts_with('/')) {
    return usage(in_quotes(text) +
                 " is not a cgroup path: it begins with '/', as in /system.slice/nginx.service");
  }
  return text;
}

Result<std::string> parse_container(const std::string& text) {
  std::string id = text;
  // "containerd://ID", as kubectl prints it.
  if (const size_t scheme = id.find("://"); scheme != id.npos) id.erase(0, scheme + 3);
  for (char& c : id) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  constexpr size_t kLeast = 4, kMost = 64;
  if (id.size() < kLeast || id.size() > kMost || id.find_first_not_of("0123456789abcdef") != id.npos) {
    return usage(in_quotes(text) +
                 " is not a container id: 4 to 64 hexadecimal digits of its beginning, as in 3f4e9c0a");
  }
  return id;
}

Result<std::string> parse_textfile(const std::string& text) {
  constexpr std::string_view kSuffix = ".prom";
  const std::string_view name = std::string_view(text).substr(text.rfind('/') + 1);
  if (!name.ends_with(kSuffix) || name == kSuffix) {
    return usage(in_quotes(text) +
                 " does not end in .prom, and node_exporter reads no other files: as in "
                 "/var/lib/prometheus/node-exporter/looptrace.prom");
  }
  return text;
}

Result<Format> parse_format(const std::string& text) {
  if (text == "json") return Format::json;
  if (text == "pretty") return Format::pretty;
  if (text == "folded") return Format::folded;
  return usage(in_quotes(text) + " is not a format; there are json, pretty and folded, as in -f json");
}

Result<HookMode> parse_hook(const std::string& text) {
  if (text == "auto") return HookMode::automatic;
  if (text == "always") return HookMode::always;
  if (text == "never") return HookMode::never;
  return usage(in_quotes(text) +
               " is not a way to hook; there are auto, always and never, as in --hook never");
}

Result<RedactRules> parse_redact(const std::vector<std::string>& texts) {
  RedactRules rules;
  for (const std::string& text : texts) {
    for (const std::string_view part : split(text, ',')) {
      if (part == "paths") {
        rules.paths = true;
      } else if (part == "args") {
        rules.args = true;
      } else if (part == "addresses") {
        rules.addresses = true;
      } else {
        return usage("--redact " + in_quotes(part) +
                     " is not known; there are paths, args and addresses, as in --redact paths,args");
      }
    }
  }
  return rules;
}

Result<uint64_t> parse_threshold(const std::string& text) {
  auto ns = parse_duration(text);
  if (ns && *ns < kLeastThreshold) {
    return usage(in_quotes(text) + " is too short: below 100us every loop stalls all the time; try 1ms");
  }
  return ns;
}

// Unlike a threshold, a run and an interval are of the order of seconds.
Result<uint64_t> parse_seconds(const std::string& text) {
  auto ns = parse_duration(text, "s");
  if (ns && *ns == 0) return usage(in_quotes(text) + " is no time at all; give more than 0, as in 30s");
  return ns;
}

Result<uint64_t> parse_interval(const std::string& text) {
  auto ns = parse_seconds(text);
  if (ns && *ns < 100'000'000)
    return usage(in_quotes(text) + " is too short; the least is 100ms, the default 10s");
  return ns;
}

Result<uint64_t> parse_max_line(const std::string& text) {
  auto bytes = parse_size(text);
  if (bytes && (*bytes < kLeastMaxLine || *bytes > kMostMaxLine)) {
    return usage(in_quotes(text) +
                 " is out of range: from 1024 (less cannot hold a record) to 16M, as in 16k");
  }
  return bytes;
}

Result<uint64_t> parse_ring(const std::string& text) {
  auto bytes = parse_size(text);
  if (bytes && (*bytes < kLeastRing || *bytes > kMostRing || (*bytes & (*bytes - 1)))) {
    return usage(in_quotes(text) + " is not a power of two from 64k to 1G, as in 8M");
  }
  return bytes;
}

Result<uint64_t> parse_count(const std::string& text) {
  auto n = parse_number(text, 1, std::numeric_limits<uint64_t>::max());
  if (!n) return usage(in_quotes(text) + " is not a count: a whole number above 0, as in 100");
  return n;
}

}  // namespace looptrace
