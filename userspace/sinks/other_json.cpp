// SPDX-License-Identifier: Apache-2.0
#include "sinks/other_json.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "record/format.h"
#include "sinks/fit.h"
#include "sinks/json_parts.h"
#include "sinks/json_writer.h"
#include "sinks/stall_json.h"

namespace looptrace {
namespace {

// What any of these records can do without, from the cheapest loss on.
struct Cuts {
  size_t text_limit = SIZE_MAX;
  size_t longest_text = 0;
  bool command_line = true;
  bool feature_texts = true;
  bool features = true;
  bool targets = true;
  bool drops = true;
  bool context = true;
};

bool unset(bool& part) { return std::exchange(part, false); }

constexpr CutStep<Cuts> kProcessSteps[] = {
    {"texts", [](Cuts& c) { return shorten_texts(c, 512); }},
    {"process.command_line", [](Cuts& c) { return unset(c.command_line); }},
    {"texts", [](Cuts& c) { return shorten_texts(c, 80); }},
    {"context", [](Cuts& c) { return unset(c.context); }},
    {"texts", [](Cuts& c) { return shorten_texts(c, 32); }},
};
constexpr CutStep<Cuts> kStartSteps[] = {
    {"texts", [](Cuts& c) { return shorten_texts(c, 200); }},
    {"features.texts", [](Cuts& c) { return unset(c.feature_texts); }},
    {"targets", [](Cuts& c) { return unset(c.targets); }},
    {"features", [](Cuts& c) { return unset(c.features); }},
    {"texts", [](Cuts& c) { return shorten_texts(c, 80); }},
};
constexpr CutStep<Cuts> kWarningSteps[] = {
    {"message", [](Cuts& c) { return shorten_texts(c, 2000); }},
    {"message", [](Cuts& c) { return shorten_texts(c, 200); }},
};
constexpr CutStep<Cuts> kSummarySteps[] = {
    {"texts", [](Cuts& c) { return shorten_texts(c, 80); }},
    {"dropped", [](Cuts& c) { return unset(c.drops); }},
};

// Opens the record, lets `fields` fill it, closes it.
template <typename Fields>
void fit_record(std::string& line, size_t max_line, std::span<const CutStep<Cuts>> steps, const char* schema,
                Fields fields) {
  fit_line<Cuts>(line, std::max(max_line, kLeastMaxLine), Cuts(), steps,
                 [&](std::string& out, Cuts& cuts, const Truncated& truncated) {
                   out.clear();
                   JsonWriter json(out, cuts.text_limit);
                   json.begin_object();
                   json.field("schema", schema);
                   fields(json, cuts);
                   if (!truncated.empty()) write_truncated(json, truncated);
                   json.end_object();
                   out += '\n';
                   cuts.longest_text = json.longest_text();
                 });
}

// The process, its thread and its container, or the least that names them.
template <typename Record>
void write_whose(JsonWriter& json, const Record& record, const Cuts& cuts) {
  if (cuts.context) {
    write_process(json, record.process, cuts.command_line);
    write_thread(json, record.thread_id, record.thread_name);
  } else {
    ProcessInfo least;
    least.pid = record.process.pid;
    least.comm = record.process.comm;
    write_process(json, least, false);
    write_thread(json, record.thread_id, "");
  }
}

// A share with six digits: more would be noise.
double share(uint64_t part, uint64_t rest) {
  const double whole = static_cast<double>(part) + static_cast<double>(rest);
  return whole > 0 ? std::round(static_cast<double>(part) / whole * 1e6) / 1e6 : 0;
}

void write_iterations(JsonWriter& json, const LoopRecord& record) {
  if (!record.iteration) return;
  json.begin_object("iteration_ns");
  json.field("p50", record.iteration->p50);
  json.field("p90", record.iteration->p90);
  json.field("p99", record.iteration->p99);
  json.field("p999", record.iteration->p999);
  json.field("max", record.iteration->max);
  json.end_object();
}

void write_wakeup_delay(JsonWriter& json, const LoopRecord& record) {
  if (!record.wakeup_delay) return;
  json.begin_object("wakeup_delay_ns");
  json.field("p50", record.wakeup_delay->p50);
  json.field("p99", record.wakeup_delay->p99);
  json.field("max", record.wakeup_delay->max);
  json.end_object();
}

}  // namespace

void write_start(std::string& line, const StartRecord& record, const HostInfo& host, size_t max_line) {
  fit_record(line, max_line, kStartSteps, "looptrace.start/1", [&](JsonWriter& json, const Cuts& cuts) {
    json.field("time", format_time(record.time_ns));
    json.field("version", record.version);
    write_host(json, host);
    json.field("kernel", record.kernel);
    if (cuts.targets) {
      json.begin_array("targets");
      for (const std::string& target : record.targets) json.element(target);
      json.end_array();
    }
    json.field("threshold_ns", record.threshold_ns);
    json.begin_object("sampling");
    json.field("stalls", record.stalls);
    if (record.sample_hz) json.field("cpu_hz", record.sample_hz);
    json.end_object();
    json.field("hook", record.hook);
    if (cuts.features) write_features(json, record.features, cuts.feature_texts);
  });
}

void write_loop_record(std::string& line, const LoopRecord& record, const HostInfo& host, size_t max_line) {
  fit_record(line, max_line, kProcessSteps, "looptrace.loop/1", [&](JsonWriter& json, const Cuts& cuts) {
    json.field("time", format_time(record.time_ns));
    json.field("interval_ns", record.interval_ns);
    json.field("hooked_ns", record.hooked_ns);
    if (cuts.context) write_host(json, host);
    write_whose(json, record, cuts);
    if (cuts.context) {
      write_container(json, record.container);
      write_service(json, record.service);
    }
    write_loop(json, record.loop);
    if (record.hooked_ns) json.field("iterations", record.iterations);
    json.field("busy_ns", record.busy_ns);
    json.field("idle_ns", record.idle_ns);
    json.field("utilization", share(record.busy_ns, record.idle_ns));
    if (record.hooked_ns) write_iterations(json, record);
    write_wakeup_delay(json, record);
    json.field("stalls", record.stalls);
    json.field("stall_ns", record.stall_ns);
    if (record.unconfirmed) json.field("unconfirmed", record.unconfirmed);
    write_stack_counts(json, record.stacks);
  });
}

void write_warning(std::string& line, const WarningRecord& record, const HostInfo& host, size_t max_line) {
  fit_record(line, max_line, kWarningSteps, "looptrace.warning/1", [&](JsonWriter& json, const Cuts&) {
    json.field("time", format_time(record.time_ns));
    write_host(json, host);
    json.field("code", record.code);
    json.field("message", record.message);
  });
}

void write_summary(std::string& line, const SummaryRecord& record, const HostInfo& host, size_t max_line) {
  fit_record(line, max_line, kSummarySteps, "looptrace.summary/1", [&](JsonWriter& json, const Cuts& cuts) {
    json.field("time", format_time(record.time_ns));
    json.field("elapsed_ns", record.elapsed_ns);
    write_host(json, host);
    json.field("loops", record.loops);
    json.field("stalls_seen", record.stalls_seen);
    json.field("stalls_emitted", record.stalls_emitted);
    if (record.switches_healed) json.field("switches_healed", record.switches_healed);
    if (record.stacks_skipped) json.field("stacks_skipped", record.stacks_skipped);
    write_stack_counts(json, record.stacks);
    if (cuts.drops && !record.dropped.empty()) {
      json.begin_object("dropped");
      for (const auto& [reason, n] : record.dropped) json.field(reason, n);
      json.end_object();
    }
    json.field("own_cpu_ns", record.own_cpu_ns);
    json.field("bpf_run_ns", record.bpf_run_ns);
    json.field("resident_bytes", record.resident_bytes);
  });
}

void write_loop_info(std::string& line, const LoopListing& listing, const HostInfo& host, size_t max_line) {
  fit_record(line, max_line, kProcessSteps, "looptrace.loop_info/1", [&](JsonWriter& json, const Cuts& cuts) {
    if (cuts.context) write_host(json, host);
    write_whose(json, listing, cuts);
    write_loop(json, listing.loop);
    json.field("iterations_per_second", listing.iterations_per_second);
    json.field("utilization", listing.utilization);
  });
}

}  // namespace looptrace
