// SPDX-License-Identifier: Apache-2.0
#include "sinks/metrics/prometheus.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <utility>

namespace looptrace {
namespace {

using Label = std::pair<std::string_view, std::string_view>;
using Labels = std::initializer_list<Label>;

// OpenMetrics: all of an exemplar's label names and values.
constexpr size_t kMostExemplarText = 128;

std::string number(uint64_t value) { return std::to_string(value); }

std::string number(double value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), end.ptr};
}

// Nanoseconds as seconds, exactly; "1.0" where `with_point`, as OpenMetrics spells bounds.
std::string seconds(uint64_t ns, bool with_point = false) {
  std::string text = std::to_string(ns / 1'000'000'000);
  uint64_t rest = ns % 1'000'000'000;
  if (!rest) return with_point ? text + ".0" : text;
  std::string digits = std::to_string(rest);
  digits.insert(0, 9 - digits.size(), '0');
  while (digits.back() == '0') digits.pop_back();
  return text + '.' + digits;
}

class Writer {
 public:
  explicit Writer(Exposition exposition) : openmetrics_(exposition == Exposition::openmetrics) {}

  enum class Type { counter, gauge, histogram, info };

  /// `name` without the suffix that the type implies (_total, _info).
  void family(std::string_view name, Type type, std::string_view help) {
    name_ = name;
    const bool counter = type == Type::counter, info = type == Type::info;
    suffix_ = counter ? "_total" : info ? "_info" : "";
    // Text 0.0.4 names a family as its samples, and does not know the type info.
    std::string shown(name);
    if (!openmetrics_) shown += suffix_;
    const char* type_name = counter                   ? "counter"
                            : type == Type::histogram ? "histogram"
                            : info && openmetrics_    ? "info"
                                                      : "gauge";
    out_ += "# HELP " + shown + ' ';
    out_ += help;
    out_ += "\n# TYPE " + shown + ' ' + type_name + '\n';
    if (!openmetrics_) return;
    for (const std::string_view unit : {"seconds", "bytes", "ratio"}) {
      if (name.ends_with(unit)) out_ += "# UNIT " + shown + ' ' + std::string(unit) + '\n';
    }
  }

  void sample(Labels labels, const std::string& value) { line(suffix_, labels, value); }

  void histogram(std::string_view service, const BoundedHistogram& histogram) {
    uint64_t below = 0;
    for (size_t i = 0; i < histogram.counts.size(); ++i) {
      below += histogram.counts[i];
      const bool last = i == histogram.bounds.size();
      const std::string le = last ? "+Inf" : seconds(histogram.bounds[i], true);
      line("_bucket", {{"service", service}, {"le", le}}, number(below), false);
      if (openmetrics_ && i < histogram.exemplars.size() && histogram.exemplars[i])
        exemplar(*histogram.exemplars[i]);
      out_ += '\n';
    }
    line("_sum", {{"service", service}}, seconds(histogram.sum_ns));
    line("_count", {{"service", service}}, number(below));
  }

  std::string finish() {
    if (openmetrics_) out_ += "# EOF\n";
    return std::move(out_);
  }

 private:
  void line(std::string_view suffix, Labels labels, const std::string& value, bool end = true) {
    out_ += name_;
    out_ += suffix;
    if (labels.size()) {
      char before = '{';
      for (const auto& [name, text] : labels) {
        out_ += before;
        before = ',';
        label(name, text);
      }
      out_ += '}';
    }
    out_ += ' ' + value;
    if (end) out_ += '\n';
  }

  void label(std::string_view name, std::string_view text) {
    out_ += name;
    out_ += "=\"";
    for (const char c : text) {
      if (c == '\n') {
        out_ += "\\n";
        continue;
      }
      if (c == '"' || c == '\\') out_ += '\\';
      out_ += c;
    }
    out_ += '"';
  }

  void exemplar(const Exemplar& exemplar) {
    constexpr std::string_view kName = "stall_id";
    if (kName.size() + exemplar.stall_id.size() > kMostExemplarText) return;
    out_ += " # {";
    label(kName, exemplar.stall_id);
    // Milliseconds: what Prometheus keeps.
    out_ += "} " + seconds(exemplar.value_ns) + ' ' + seconds(exemplar.time_ns / 1'000'000 * 1'000'000);
  }

  bool openmetrics_;
  std::string_view name_, suffix_;
  std::string out_;
};

using Type = Writer::Type;

void write_stalls(Writer& out, const MetricsState& state) {
  const auto by_cause = [&](auto value) {
    for (const auto& [label, service] : state.services) {
      for (size_t i = 0; i < kCauses; ++i) {
        const auto& of_cause = service.causes[i];
        out.sample({{"service", label}, {"cause", cause_name(static_cast<Cause>(i))}}, value(of_cause));
      }
    }
  };
  // Every cause from the start: increase() does not see a series' first value.
  out.family("looptrace_stalls", Type::counter,
             "Loop iterations at or over the threshold that ended, by cause.");
  by_cause([](const auto& of_cause) { return number(of_cause.stalls); });
  out.family("looptrace_stall_seconds", Type::counter,
             "Time in these iterations, whole, by the cause that took the most of it.");
  by_cause([](const auto& of_cause) { return seconds(of_cause.stall_ns); });
  out.family("looptrace_stall_duration_seconds", Type::histogram, "How long these iterations took.");
  for (const auto& [label, service] : state.services) out.histogram(label, service.stall_duration);
  out.family("looptrace_stalls_open", Type::gauge, "Stalls that have been reported and go on.");
  for (const auto& [label, service] : state.services) out.sample({{"service", label}}, number(service.open));
  out.family("looptrace_stalls_unconfirmed", Type::counter,
             "Iterations over the threshold that could not be told from several short ones.");
  for (const auto& [label, service] : state.services)
    out.sample({{"service", label}}, number(service.unconfirmed));
}

void write_loops(Writer& out, const MetricsState& state) {
  out.family("looptrace_loops", Type::gauge,
             "Event loops seen in the last interval, those that ended in it included.");
  for (const auto& [label, service] : state.services) out.sample({{"service", label}}, number(service.loops));
  out.family("looptrace_loop_busy_seconds", Type::counter, "Time that loops spent outside of their polls.");
  for (const auto& [label, service] : state.services)
    out.sample({{"service", label}}, seconds(service.busy_ns));
  out.family("looptrace_loop_idle_seconds", Type::counter, "Time that loops spent in their polls.");
  for (const auto& [label, service] : state.services)
    out.sample({{"service", label}}, seconds(service.idle_ns));
  out.family("looptrace_loop_utilization_ratio", Type::gauge,
             "Busy share of the service's busiest loop in the last interval.");
  for (const auto& [label, service] : state.services) {
    if (service.loops) out.sample({{"service", label}}, number(service.utilization));
  }
  out.family("looptrace_iteration_duration_seconds", Type::histogram,
             "How long iterations took, of those while every poll was seen (the hooked_ns of loop records).");
  for (const auto& [label, service] : state.services) out.histogram(label, service.iteration);
  out.family("looptrace_wakeup_delay_seconds", Type::histogram,
             "From being woken out of the poll until running.");
  for (const auto& [label, service] : state.services) out.histogram(label, service.wakeup_delay);
}

void write_self(Writer& out, const MetricsState& state) {
  out.family("looptrace_label_overflow", Type::counter,
             "Records counted under service other because there are too many services.");
  out.sample({}, number(state.label_overflow));
  if (state.self) {
    out.family("looptrace_dropped", Type::counter, "What was lost, by reason.");
    for (const auto& [reason, n] : state.self->dropped) out.sample({{"reason", reason}}, number(n));
    out.family("looptrace_agent_cpu_seconds", Type::counter, "CPU time of looptrace itself.");
    out.sample({}, seconds(state.self->cpu_ns));
    // The agent measures or estimates it itself; else it is known only while the kernel's own statistics are
    // on.
    const auto bpf_ns = state.agent ? std::optional(state.agent->bpf_ns) : state.self->bpf_ns;
    if (bpf_ns) {
      out.family("looptrace_agent_bpf_seconds", Type::counter, "Run time of its BPF programs.");
      out.sample({}, seconds(*bpf_ns));
    }
    out.family("looptrace_agent_resident_bytes", Type::gauge,
               "Memory of looptrace: resident, and of its BPF maps.");
    out.sample({}, number(state.self->resident_bytes));
  }
  if (state.build) {
    out.family("looptrace_build", Type::info, "What runs here: its version, the kernel, how polls are seen.");
    out.sample(
        {{"version", state.build->version}, {"kernel", state.build->kernel}, {"hook", state.build->hook}},
        "1");
  }
}

void write_agent(Writer& out, const MetricsState& state) {
  if (!state.agent) return;
  const MetricsState::Agent& agent = *state.agent;
  out.family("looptrace_stalls_sampled", Type::counter,
             "Stall records that the agent wrote, of windows that are over.");
  for (const auto& [label, service] : state.services)
    out.sample({{"service", label}}, number(service.sampled));
  out.family("looptrace_windows", Type::counter, "Sampling windows that are over, traced or not.");
  out.sample({{"active", "true"}}, number(agent.active_windows));
  out.sample({{"active", "false"}}, number(agent.idle_windows));
  out.family("looptrace_window_active", Type::gauge, "Whether the last window was traced.");
  out.sample({}, agent.active ? "1" : "0");
  out.family("looptrace_window_probability_ratio", Type::gauge, "That a window is traced.");
  out.sample({}, number(agent.probability));
  out.family("looptrace_agent_budget_level", Type::gauge,
             "What is shed to keep the budget: 0 nothing, then ever more.");
  out.sample({}, number(uint64_t{agent.budget.step}));
  out.family("looptrace_agent_budget_ratio", Type::gauge,
             "CPU used as a share of the CPU budget, BPF included.");
  out.sample({}, number(agent.budget.limit > 0 ? agent.budget.used / agent.budget.limit : 0));
  out.family("looptrace_agent_budget", Type::info, "The budget's present level by its name, and why.");
  out.sample({{"level", agent.budget.level}, {"reason", agent.budget.reason}}, "1");
  out.family("looptrace_agent_config_reloads", Type::counter, "Times that the configuration was read anew.");
  out.sample({{"result", "success"}}, number(state.reloads));
  out.sample({{"result", "failure"}}, number(state.failed_reloads));
}

// The q of a media range's parameters; 1 if it has none.
double quality(std::string_view parameters) {
  const size_t at = parameters.find("q=");
  if (at == std::string_view::npos) return 1;
  double q = 1;
  const std::string_view text = parameters.substr(at + 2);
  std::from_chars(text.data(), text.data() + text.size(), q);
  return q;
}

}  // namespace

Exposition choose_exposition(std::string_view accept) {
  double openmetrics = 0, text = 0;
  while (!accept.empty()) {
    const size_t comma = std::min(accept.find(','), accept.size());
    std::string range(accept.substr(0, comma));
    accept.remove_prefix(std::min(comma + 1, accept.size()));
    std::erase_if(range, [](char c) { return c == ' ' || c == '\t' || c == '"'; });
    std::transform(range.begin(), range.end(), range.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    const size_t end = std::min(range.find(';'), range.size());
    const std::string_view type = std::string_view(range).substr(0, end);
    const std::string_view parameters = std::string_view(range).substr(end);
    if (type == "application/openmetrics-text") {
      // A client that wants another version (0.0.1 is what 1.0 was called as a draft) does not get ours.
      const size_t version = parameters.find("version=");
      const bool ours = version == std::string_view::npos ||
                        parameters.substr(version + 8).starts_with("1.0") ||
                        parameters.substr(version + 8).starts_with("0.0.1");
      if (ours) openmetrics = std::max(openmetrics, quality(parameters));
    } else if (type == "text/plain" || type == "text/*" || type == "*/*") {
      text = std::max(text, quality(parameters));
    }
  }
  return openmetrics > 0 && openmetrics >= text ? Exposition::openmetrics : Exposition::text;
}

const char* content_type(Exposition exposition) {
  return exposition == Exposition::openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                               : "text/plain; version=0.0.4; charset=utf-8";
}

std::string write_metrics(const MetricsState& state, Exposition exposition) {
  Writer out(exposition);
  write_stalls(out, state);
  write_loops(out, state);
  write_self(out, state);
  write_agent(out, state);
  return out.finish();
}

}  // namespace looptrace
