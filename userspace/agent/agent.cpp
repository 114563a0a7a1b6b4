// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "agent/config.h"
#include "base/host.h"
#include "base/sha256.h"
#include "sinks/jsonl.h"
#include "sinks/line_writer.h"
#include "sinks/redacting.h"
#include "stacks/debuginfod.h"
#include "trace/prepare.h"
#include "trace/side_outputs.h"

namespace looptrace {

namespace {

std::string keyed_hash(const std::string& key, const std::string& text) {
  return text.empty() ? text : hmac_sha256_hex(key, text).substr(0, 16);
}

HostInfo host_of(const AgentConfig& config) {
  HostInfo host = read_host_info();
  host.name = config.windows.host;
  if (config.hash_host) {
    host.name = keyed_hash(config.hash_key, host.name);
    host.id = keyed_hash(config.hash_key, host.id);
  }
  return host;
}

RedactRules rules_of(const AgentConfig& config) {
  RedactRules rules = config.trace.redact;
  rules.ids = config.hash_ids;
  rules.key = config.hash_key;
  return rules;
}

/// The agent between two restarts: one configuration, one trace.
class Run {
 public:
  Run(std::string path, AgentConfig config, SdNotify& notify)
      : path_(std::move(path)), config_(std::move(config)), notify_(notify) {}

  Result<void> run(int signal_fd, const std::string& version);
  /// The configuration to go on with; nothing if the agent was told to end.
  std::optional<AgentConfig> next() { return restart_ ? std::move(next_) : std::nullopt; }
  /// It has come as far as tracing.
  bool has_started() const { return started_; }
  const AgentConfig& config() const { return config_; }

 private:
  Result<void> reload(LineWriter& writer, WindowKeeper& keeper, Tracer& tracer);

  std::string path_;
  AgentConfig config_;
  SdNotify& notify_;
  std::optional<AgentConfig> next_;
  bool restart_ = false;
  bool started_ = false;
};

Result<void> Run::run(int signal_fd, const std::string& version) {
  auto features = usable_features(config_.trace.hook);
  if (!features) return features.error();
  LineWriter writer = LineWriter::borrow(STDOUT_FILENO);
  if (!config_.trace.output.empty()) {
    auto file = LineWriter::append_to(config_.trace.output);
    if (!file) return file.error();
    writer = std::move(*file);
  }
  const HostInfo host = host_of(config_);
  JsonlSink json(writer, JsonlOptions{config_.trace.max_line, host});
  auto sides = SideOutputs::open({config_.metrics_listen, config_.metrics_textfile, config_.otlp,
                                  config_.trace.interval_ns, host, version});
  if (!sides) return sides.error();
  SamplingSink sampling((*sides)->exporting(json));
  Sink* head = &(*sides)->counting(sampling);  // all stalls, not the sampled ones
  std::optional<RedactingSink> redacting;
  if (const RedactRules rules = rules_of(config_); rules.any()) head = &redacting.emplace(*head, rules);
  WindowKeeper keeper(config_.windows, *head, sampling, notify_);

  TraceConfig trace = to_trace_config(config_.trace, version, std::move(*features));
  trace.host_name = host.name;
  trace.name_service = [rules = config_.services](const ProcessInfo& process,
                                                  const ContainerInfo& container) {
    return service_of(rules, process, container);
  };
  trace.conductor = &keeper;
  if (config_.trace.debuginfod) {
    auto servers = Debuginfod::open();
    if (!servers) return servers.error();
    trace.debuginfod = std::move(*servers);
  }
  Tracer tracer(std::move(trace), *head);
  if (auto r = tracer.setup(); !r) return r;
  started_ = true;
  notify_.ready("tracing in windows of " + std::to_string(config_.windows.window_ns / 1'000'000'000) + " s");
  return tracer.run(signal_fd, [&] { return reload(writer, keeper, tracer); });
}

// In the worker, on SIGHUP.
Result<void> Run::reload(LineWriter& writer, WindowKeeper& keeper, Tracer& tracer) {
  notify_.reloading();
  std::string trouble;
  if (auto r = writer.reopen(); !r) trouble = r.error().message();
  auto fresh = load_agent_config(path_, looptrace_environment());
  if (!fresh) {
    trouble = fresh.error().message();
  } else if (only_sampling_differs(config_, *fresh)) {
    keeper.replace_options(fresh->windows);
    config_ = std::move(*fresh);
  } else {
    next_ = std::move(*fresh);
    keeper.stop_after_window([this, &tracer] {
      restart_ = true;
      tracer.stop();
    });
  }
  if (!trouble.empty()) {
    std::fprintf(stderr, "looptrace: %s; going on as before\n", trouble.c_str());
    tracer.warn("reload_failed", trouble + "; going on as before");
  }
  notify_.ready(trouble.empty() ? "configuration read"
                                : "configuration wrong, the old one stays: " + trouble);
  return {};
}

}  // namespace

Result<void> run_agent(const std::string& config_path, const std::string& version) {
  auto signals = take_signals();
  if (!signals) return signals.error();
  auto config = load_agent_config(config_path, looptrace_environment());
  if (!config) return config.error();
  SdNotify notify;
  std::optional<AgentConfig> present = std::move(*config), before;
  while (present) {
    Run run(config_path, std::move(*present), notify);
    auto ended = run.run(signals->get(), version);
    if (!ended && !run.has_started() && before) {
      // A file can be right and yet not work: its port is taken, its output cannot be opened.
      std::fprintf(stderr, "looptrace: %s; going back to the configuration before\n",
                   ended.error().message().c_str());
      present = std::exchange(before, std::nullopt);
      continue;
    }
    if (!ended) return is_reader_gone(ended.error()) ? Result<void>{} : ended;
    before = run.config();
    present = run.next();
  }
  return {};
}

Result<void> check_agent_config(const std::string& config_path) {
  auto config = load_agent_config(config_path, looptrace_environment());
  if (!config) return config.error();
  std::printf("%s is right\n", config_path.empty() ? "the environment" : config_path.c_str());
  return {};
}

}  // namespace looptrace
