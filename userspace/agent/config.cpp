// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <functional>

#include "base/files.h"
#include "base/host.h"
#include "cli/config_file.h"
#include "cli/units.h"
#include "cli/values.h"

extern char** environ;

namespace looptrace {
namespace {

using Values = std::vector<std::string>;
constexpr size_t kFileLimit = 1u << 20;
constexpr const char* kMetricsAddress = "127.0.0.1:9464";

Error usage(std::string what) { return Error{std::move(what), 0, Fault::usage}; }

// "0.5%" or "0.005".
Result<double> parse_share(const std::string& text) {
  std::string_view number = text;
  const bool percent = number.ends_with('%');
  if (percent) number.remove_suffix(1);
  number = trim(number);
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (percent) value /= 100;
  if (error != std::errc() || end != number.data() + number.size() || !std::isfinite(value) || value <= 0)
    return usage("'" + text + "' is no share above 0; write 0.5% or 0.005");
  return value;
}

Result<bool> parse_bool(const std::string& text) {
  if (text == "true" || text == "yes" || text == "on" || text == "1") return true;
  if (text == "false" || text == "no" || text == "off" || text == "0") return false;
  return usage("'" + text + "' is neither true nor false");
}

Result<std::string> any_text(const std::string& text) { return text; }

// A key of one value: `parse` reads it, `store` puts it into the configuration. An empty value is read as "".
template <typename Parse, typename Store>
auto one(Parse parse, Store store) {
  return [=](AgentConfig& config, const Values& values) -> Result<void> {
    if (values.size() > 1) return usage("takes one value; quotes keep one with blanks together");
    auto value = parse(values.empty() ? std::string() : values[0]);
    if (!value) return value.error();
    store(config, *value);
    return {};
  };
}

// A key of several.
template <typename Parse, typename Store>
auto each(Parse parse, Store store) {
  return [=](AgentConfig& config, const Values& values) -> Result<void> {
    for (const std::string& text : values) {
      auto value = parse(text);
      if (!value) return value.error();
      store(config, *value);
    }
    return {};
  };
}

template <typename Parse>
auto number(uint64_t least, uint64_t most, Parse store) {
  return one([=](const std::string& text) { return parse_number(text, least, most); }, store);
}

struct Key {
  const char* name;
  std::function<Result<void>(AgentConfig&, const Values&)> take;
};

using C = AgentConfig;
using T = const std::string&;

const std::vector<Key>& keys() {
  static const std::vector<Key> all = {
      {"targets.comm", each(parse_name, [](C& c, T v) { c.trace.targets.comms.push_back(v); })},
      {"targets.exe", each(parse_name, [](C& c, T v) { c.trace.targets.exes.push_back(v); })},
      {"targets.cgroup", each(parse_cgroup, [](C& c, T v) { c.trace.targets.cgroups.push_back(v); })},
      {"targets.container",
       each(parse_container, [](C& c, T v) { c.trace.targets.containers.push_back(v); })},
      {"trace.threshold", one(parse_threshold, [](C& c, uint64_t ns) { c.trace.threshold_ns = ns; })},
      {"trace.interval", one(parse_interval, [](C& c, uint64_t ns) { c.trace.interval_ns = ns; })},
      {"trace.hook", one(parse_hook, [](C& c, HookMode mode) { c.trace.hook = mode; })},
      {"trace.stacks", one(parse_bool, [](C& c, bool on) { c.trace.stacks = on; })},
      {"trace.source_lines", one(parse_bool, [](C& c, bool on) { c.trace.source_lines = on; })},
      {"trace.debuginfod", one(parse_bool, [](C& c, bool on) { c.trace.debuginfod = on; })},
      {"trace.max_loops",
       number(1, 1'000'000, [](C& c, uint64_t n) { c.trace.max_loops = static_cast<uint32_t>(n); })},
      {"trace.ring_bytes", one(parse_ring, [](C& c, uint64_t n) { c.trace.ring_bytes = n; })},
      {"sampling.window", one(parse_seconds, [](C& c, uint64_t ns) { c.windows.window_ns = ns; })},
      {"sampling.probability", one(parse_share, [](C& c, double p) { c.windows.probability = p; })},
      {"sampling.seed", one(any_text, [](C& c, T v) { c.windows.seed = v; })},
      {"sampling.host", one(any_text, [](C& c, T v) { c.windows.host = v; })},
      {"sampling.records", number(8, 100'000, [](C& c, uint64_t n) { c.windows.sample.records = n; })},
      {"sampling.per_fingerprint",
       number(1, 100'000, [](C& c, uint64_t n) { c.windows.sample.per_fingerprint = n; })},
      {"sampling.drain", one(parse_seconds, [](C& c, uint64_t ns) { c.windows.drain_ns = ns; })},
      {"budget.cpu", one(parse_share, [](C& c, double share) { c.windows.budget.cpu = share; })},
      {"budget.memory",
       one(parse_size, [](C& c, uint64_t bytes) { c.windows.budget.memory_bytes = bytes; })},
      {"budget.recovery", one(parse_interval, [](C& c, uint64_t ns) { c.windows.budget.quiet_ns = ns; })},
      {"output.file", one(any_text, [](C& c, T v) { c.trace.output = v == "-" ? "" : v; })},
      {"output.max_line", one(parse_max_line, [](C& c, uint64_t n) { c.trace.max_line = n; })},
      {"metrics.listen",
       [](C& c, const Values& values) -> Result<void> {
         c.metrics_listen.reset();
         if (values.empty()) return {};
         auto address = parse_listen_address(values[0]);
         if (!address) return address.error();
         c.metrics_listen = *address;
         return {};
       }},
      {"metrics.textfile", one(any_text, [](C& c, T v) { c.metrics_textfile = v; })},
      {"otlp.url",
       [](C& c, const Values& values) -> Result<void> {
         c.otlp.reset();
         if (values.empty()) return {};
         auto url = parse_http_url(values[0]);
         if (!url) return url.error();
         c.otlp = *url;
         return {};
       }},
      {"service.rule", each(parse_service_rule, [](C& c, const ServiceRule& r) { c.services.push_back(r); })},
      {"privacy.redact",
       [](C& c, const Values& values) -> Result<void> {
         auto rules = parse_redact(values);
         if (!rules) return rules.error();
         c.trace.redact = *rules;
         return {};
       }},
      {"privacy.hash_host", one(parse_bool, [](C& c, bool on) { c.hash_host = on; })},
      {"privacy.hash_ids", one(parse_bool, [](C& c, bool on) { c.hash_ids = on; })},
      {"privacy.hash_key", one(any_text, [](C& c, T v) { c.hash_key = v; })},
  };
  return all;
}

const Key* find_key(const std::string& name) {
  const auto found =
      std::find_if(keys().begin(), keys().end(), [&](const Key& key) { return name == key.name; });
  return found == keys().end() ? nullptr : &*found;
}

std::string variable_of(std::string name) {
  for (char& c : name) c = c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return "LOOPTRACE_" + name;
}

std::string known_keys_of(const std::string& section) {
  std::string list;
  for (const Key& key : keys()) {
    const std::string name = key.name;
    if (name.starts_with(section + "."))
      (list += list.empty() ? "" : ", ") += name.substr(section.size() + 1);
  }
  if (!list.empty()) return "there are " + list;
  std::vector<std::string> sections;
  for (const Key& key : keys()) {
    const std::string name = key.name;
    const std::string of = name.substr(0, name.find('.'));
    if (sections.empty() || sections.back() != of) sections.push_back(of);
  }
  for (const std::string& name : sections) (list += list.empty() ? "" : ", ") += '[' + name + ']';
  return "there are the sections " + list;
}

Result<void> take_file(const std::string& path, AgentConfig& config) {
  auto text = read_file(path, kFileLimit);
  if (!text) return Error{"read the configuration " + path, text.error().err, Fault::usage};
  auto entries = parse_config(*text, path);
  if (!entries) return entries.error();
  std::map<std::string, int> seen;
  for (const ConfigEntry& entry : *entries) {
    const std::string at = path + ":" + std::to_string(entry.line) + ": ";
    const Key* key = find_key(entry.name());
    if (!key) return usage(at + "there is no key '" + entry.name() + "'; " + known_keys_of(entry.section));
    const auto [before, is_new] = seen.emplace(entry.name(), entry.line);
    if (!is_new && entry.name() != "service.rule") {
      return usage(at + "'" + entry.name() + "' stands in line " + std::to_string(before->second) +
                   " already; leave one of them out");
    }
    if (auto r = key->take(config, entry.values); !r) return usage(at + entry.name() + ": " + r.error().what);
    auto& given = config.given[entry.name()];
    given.insert(given.end(), entry.values.begin(), entry.values.end());
  }
  return {};
}

Result<void> take_environment(const std::map<std::string, std::string>& environment, AgentConfig& config) {
  for (const Key& key : keys()) {
    const std::string variable = variable_of(key.name);
    const auto found = environment.find(variable);
    if (found == environment.end()) continue;
    Values values;
    if (key.name == std::string_view("service.rule")) {
      for (const std::string_view rule : split(found->second, ';')) values.emplace_back(trim(rule));
      config.services.clear();
    } else if (std::string_view(key.name).starts_with("targets.")) {
      for (const std::string_view part : split(found->second, ',')) values.emplace_back(trim(part));
    } else {
      values = {found->second};
    }
    std::erase(values, "");
    config.given[key.name] = values;
    if (auto r = key.take(config, values); !r)
      return usage("the environment's " + variable + ": " + r.error().what);
  }
  return {};
}

// What no key can tell alone.
Result<void> check(AgentConfig& config, const std::string& where) {
  WindowOptions& w = config.windows;
  if (w.probability > 1) return usage(where + "sampling.probability is above 1, that is above 100%");
  if (w.window_ns < 1'000'000'000) return usage(where + "sampling.window is below 1s");
  if ((config.hash_host || config.hash_ids) && config.hash_key.size() < 16) {
    return usage(
        where +
        "privacy.hash_key is needed to hash, of 16 characters and more: who has no key must not be able "
        "to try names until one fits");
  }
  if (w.sample.per_fingerprint > w.sample.records) w.sample.per_fingerprint = w.sample.records;
  w.threshold_ns = config.trace.threshold_ns;
  w.source_lines = config.trace.source_lines;
  if (w.host.empty()) w.host = read_host_info().name;
  return {};
}

}  // namespace

Result<AgentConfig> load_agent_config(const std::string& path,
                                      const std::map<std::string, std::string>& environment) {
  AgentConfig config;
  config.windows.seed = "looptrace";
  config.metrics_listen = *parse_listen_address(kMetricsAddress);
  if (!path.empty()) {
    if (auto r = take_file(path, config); !r) return r.error();
  }
  if (auto r = take_environment(environment, config); !r) return r.error();
  if (auto r = check(config, path.empty() ? "" : path + ": "); !r) return r.error();
  return config;
}

std::map<std::string, std::string> looptrace_environment() {
  std::map<std::string, std::string> found;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (text.starts_with("LOOPTRACE_") && equals != text.npos)
      found.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return found;
}

bool same_keys(const AgentConfig& a, const AgentConfig& b, std::initializer_list<std::string_view> prefixes) {
  const auto part = [&](const AgentConfig& config) {
    auto given = config.given;
    std::erase_if(given, [&](const auto& entry) {
      return std::none_of(prefixes.begin(), prefixes.end(),
                          [&](std::string_view prefix) { return entry.first.starts_with(prefix); });
    });
    return given;
  };
  return part(a) == part(b);
}

bool only_sampling_differs(const AgentConfig& a, const AgentConfig& b) {
  return same_keys(a, b,
                   {"targets.", "trace.", "output.", "metrics.", "otlp.", "service.", "privacy.",
                    "sampling.host",    // stands in every record
                    "budget.memory"});  // bounds tables that are made at the start
}

std::vector<std::string> agent_config_keys() {
  std::vector<std::string> names;
  for (const Key& key : keys()) names.emplace_back(key.name);
  return names;
}

}  // namespace looptrace
