// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "agent/config.h"
#include "agent/reloads.h"
#include "base/host.h"
#include "base/sha256.h"
#include "sinks/jsonl.h"
#include "sinks/line_writer.h"
#include "sinks/queued_lines.h"
#include "sinks/redacting.h"
#include "stacks/debuginfod.h"
#include "trace/prepare.h"
#include "trace/side_outputs.h"

namespace looptrace {

namespace {

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

SideOptions side_options_of(const AgentConfig& config, const std::string& version) {
  return {config.metrics_listen,    config.metrics_textfile, config.otlp,
          config.trace.interval_ns, host_of(config),         version};
}

bool same_sides(const AgentConfig& a, const AgentConfig& b) {
  return same_keys(a, b, {"metrics.", "otlp.", "privacy.", "sampling.host", "trace.interval"});
}

Result<LineWriter> open_output(const std::string& file) {
  if (file.empty()) return LineWriter::borrow(STDOUT_FILENO);
  return LineWriter::append_to(file);
}

// A name that comes from a pod or a unit tells what that one's hash hides.
ServiceNamer namer_of(const AgentConfig& config) {
  return [rules = config.services, hide = config.hash_ids, key = config.hash_key](
             const ProcessInfo& process, const ContainerInfo& container) {
    const std::string ruled = service_by_rule(rules, process, container);
    if (!ruled.empty()) return ruled;
    const std::string name = service_without_rule(process, container);
    return hide && name != process.comm ? keyed_hash(key, name) : name;
  };
}

/// Where the records go. What a reload leaves as it was stays open over a restart: counters, connections and
/// what is queued for a slow reader are not lost with the old trace.
class Outputs {
 public:
  explicit Outputs(std::string version) : version_(std::move(version)) {}

  /// For this configuration from now on.
  Result<void> open(const AgentConfig& config);
  QueuedLines& lines() { return *lines_; }
  SideOutputs& sides() { return *sides_; }
  /// The trace is about to end, and one with this configuration follows: what that leaves as it is goes on.
  void stay_open_for(const AgentConfig& next);
  /// Waits a while for what is queued for the reader, and tells on stderr what of it is lost.
  void finish();

 private:
  const std::string version_;
  std::optional<AgentConfig> config_;
  std::unique_ptr<QueuedLines> lines_;
  std::unique_ptr<SideOutputs> sides_;
};

Result<void> Outputs::open(const AgentConfig& config) {
  std::unique_ptr<QueuedLines> fresh;
  if (!lines_ || !config_ || config_->trace.output != config.trace.output) {
    auto writer = open_output(config.trace.output);
    if (!writer) return writer.error();
    fresh = std::make_unique<QueuedLines>(std::move(*writer));
  }
  if (!sides_ || !config_ || !same_sides(*config_, config)) {
    sides_.reset();  // it may have the port that is wanted
    auto sides = SideOutputs::open(side_options_of(config, version_));
    if (!sides) return sides.error();
    sides_ = std::move(*sides);
  }
  // Only now: where the sides fail, the configuration before this one comes back, and its lines with it.
  if (fresh) {
    finish();
    lines_ = std::move(fresh);
  }
  config_ = config;
  return {};
}

void Outputs::stay_open_for(const AgentConfig& next) {
  if (config_->trace.output == next.trace.output) lines_->stay_open();
  if (same_sides(*config_, next)) sides_->stay_open();
}

void Outputs::finish() {
  if (!lines_) return;
  lines_->finish();
  std::string trouble = lines_->trouble();
  const uint64_t unwritten = lines_->unwritten();
  if (trouble.empty() && !unwritten) return;
  if (trouble.empty()) trouble = "nobody read " + lines_->name() + " in time";
  const std::string lines = unwritten ? ": " + std::to_string(unwritten) + " lines were not written" : "";
  std::fprintf(stderr, "looptrace: %s; the last records are lost%s\n", trouble.c_str(), lines.c_str());
}

// The agent is to take little, and what does not fit is counted.
EngineOptions within_memory(EngineOptions engine, const AgentConfig& config) {
  if (!config.trace.ring_bytes) engine.ring_bytes = engine.max_loops > 1024 ? 4u << 20 : 2u << 20;
  if (const uint64_t limit = config.windows.budget.memory_bytes) engine.row_bytes = limit / 3;
  return engine;
}

/// Whether a configuration can be traced with, found out beside the trace that goes on: opens what that one
/// does not hold already, loads the programs and attaches them for no process.
Result<void> try_out(const AgentConfig& fresh, const AgentConfig& present, const std::string& version) {
  auto features = usable_features(fresh.trace.hook);
  if (!features) return features.error();
  if (fresh.trace.output != present.trace.output) {
    if (auto writer = open_output(fresh.trace.output); !writer) return writer.error();
  }
  SideOptions sides = side_options_of(fresh, version);
  if (same_keys(fresh, present, {"metrics.listen"})) sides.metrics.reset();
  if (same_keys(fresh, present, {"metrics.textfile"})) sides.textfile.clear();
  if (auto opened = SideOutputs::open(sides); !opened) return opened.error();
  if (fresh.trace.debuginfod) {
    if (auto servers = Debuginfod::open(); !servers) return servers.error();
  }
  auto engine =
      Engine::load(within_memory(to_trace_config(fresh.trace, version, std::move(*features)).engine, fresh));
  if (!engine) return engine.error();
  return (*engine)->attach();
}

/// The agent between two restarts: one configuration, one trace.
class Run {
 public:
  Run(std::string path, AgentConfig config, Outputs& outputs, SdNotify& notify, std::string version)
      : path_(std::move(path)),
        config_(std::move(config)),
        outputs_(outputs),
        notify_(notify),
        version_(std::move(version)) {}

  /// `trouble`: the configuration that was to follow this one did not work.
  RunOutcome run(int signal_fd, const std::string& trouble);

 private:
  Result<void> trace(int signal_fd, const std::string& trouble);
  Result<void> reload(WindowKeeper& keeper, Tracer& tracer);
  void tell_trouble(Tracer& tracer, const std::string& trouble);

  const std::string path_;
  AgentConfig config_;
  Outputs& outputs_;
  SdNotify& notify_;
  const std::string version_;
  std::optional<AgentConfig> next_;
  bool restart_ = false;
  bool interrupted_ = false;
  bool worked_ = false;
};

RunOutcome Run::run(int signal_fd, const std::string& trouble) {
  RunOutcome outcome;
  outcome.ended = trace(signal_fd, trouble);
  outcome.worked = worked_;
  outcome.config = std::move(config_);
  if (restart_ && !interrupted_) outcome.next = std::move(next_);
  return outcome;
}

Result<void> Run::trace(int signal_fd, const std::string& trouble) {
  auto features = usable_features(config_.trace.hook);
  if (!features) return features.error();
  if (auto r = outputs_.open(config_); !r) return r;
  const HostInfo host = host_of(config_);
  JsonlSink json(outputs_.lines(), JsonlOptions{config_.trace.max_line, host});
  SamplingSink sampling(outputs_.sides().exporting(json));
  // All stalls are counted, not the sampled ones.
  Sink* head = &outputs_.sides().counting(sampling, {&outputs_.lines()});
  std::optional<RedactingSink> redacting;
  if (const RedactRules rules = rules_of(config_); rules.any()) head = &redacting.emplace(*head, rules);
  WindowKeeper keeper(config_.windows, *head, sampling, outputs_.lines(), notify_);

  TraceConfig trace = to_trace_config(config_.trace, version_, std::move(*features));
  trace.engine = within_memory(trace.engine, config_);
  trace.host_name = host.name;
  trace.name_service = namer_of(config_);
  trace.conductor = &keeper;
  if (config_.trace.debuginfod) {
    auto servers = Debuginfod::open();
    if (!servers) return servers.error();
    trace.debuginfod = std::move(*servers);
  }
  Tracer tracer(std::move(trace), *head);
  if (auto r = tracer.setup(); !r) return r;
  if (!trouble.empty()) tell_trouble(tracer, trouble);
  notify_.ready("tracing in windows of " + std::to_string(config_.windows.window_ns / 1'000'000'000) + " s");
  auto ended = tracer.run(signal_fd, [&] { return reload(keeper, tracer); });
  worked_ = keeper.has_attached();
  interrupted_ = tracer.interrupted();
  return ended;
}

// In the worker, on SIGHUP.
Result<void> Run::reload(WindowKeeper& keeper, Tracer& tracer) {
  notify_.reloading();
  notify_.be_patient();  // trying loads programs
  std::string trouble;
  if (auto r = outputs_.lines().reopen(); !r) trouble = r.error().message();
  auto fresh = load_agent_config(path_, looptrace_environment());
  if (!fresh) {
    trouble = fresh.error().message();
  } else if (only_sampling_differs(config_, *fresh)) {
    keeper.replace_options(fresh->windows);
    keeper.stop_after_window(nullptr);  // if another one was to follow
    config_ = std::move(*fresh);
  } else if (auto works = try_out(*fresh, config_, version_); !works) {
    trouble = works.error().message();
  } else {
    next_ = std::move(*fresh);
    keeper.stop_after_window([this, &tracer] {
      restart_ = true;
      outputs_.stay_open_for(*next_);
      tracer.stop();
    });
  }
  if (!trouble.empty()) {
    tell_trouble(tracer, trouble);
  } else {
    outputs_.sides().metrics().reloaded(true);
  }
  notify_.ready(trouble.empty() ? "configuration read"
                                : "configuration wrong, the old one stays: " + trouble);
  return {};
}

void Run::tell_trouble(Tracer& tracer, const std::string& trouble) {
  outputs_.sides().metrics().reloaded(false);
  std::fprintf(stderr, "looptrace: %s; going on as before\n", trouble.c_str());
  tracer.warn("reload_failed", trouble + "; going on as before");
}

}  // namespace

Result<void> run_agent(const std::string& config_path, const std::string& version) {
  auto signals = take_signals();
  if (!signals) return signals.error();
  auto config = load_agent_config(config_path, looptrace_environment());
  if (!config) return config.error();
  SdNotify notify;
  Outputs outputs(version);
  auto ended = run_through_reloads(std::move(*config), [&](AgentConfig present, const std::string& trouble) {
    return Run(config_path, std::move(present), outputs, notify, version).run(signals->get(), trouble);
  });
  notify.stopping();  // only now: to systemd, what stops does not come back, and is killed after a while
  outputs.finish();
  return ended;
}

Result<void> check_agent_config(const std::string& config_path) {
  auto config = load_agent_config(config_path, looptrace_environment());
  if (!config) return config.error();
  std::printf("%s is right\n", config_path.empty() ? "the environment" : config_path.c_str());
  return {};
}

}  // namespace looptrace
