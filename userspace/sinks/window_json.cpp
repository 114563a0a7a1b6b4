// SPDX-License-Identifier: Apache-2.0
#include "sinks/window_json.h"

#include <algorithm>

#include "record/format.h"
#include "sinks/fit.h"
#include "sinks/json_parts.h"
#include "sinks/json_writer.h"
#include "sinks/stall_json.h"

namespace looptrace {
namespace {

struct WindowCuts {
  const WindowRecord* record;
  size_t strata = SIZE_MAX, capped = SIZE_MAX, drops = SIZE_MAX;
  size_t text_limit = SIZE_MAX;
  size_t longest_text = 0;
};

bool keep(size_t& limit, size_t present, size_t n) {
  if (std::min(limit, present) <= n) return false;
  limit = n;
  return true;
}

constexpr CutStep<WindowCuts> kSteps[] = {
    {"capped", [](WindowCuts& c) { return keep(c.capped, c.record->capped.size(), 16); }},
    {"strata", [](WindowCuts& c) { return keep(c.strata, c.record->strata.size(), 16); }},
    {"texts", [](WindowCuts& c) { return shorten_texts(c, 64); }},
    {"capped", [](WindowCuts& c) { return keep(c.capped, c.record->capped.size(), 0); }},
    {"strata", [](WindowCuts& c) { return keep(c.strata, c.record->strata.size(), 4); }},
    {"strata", [](WindowCuts& c) { return keep(c.strata, c.record->strata.size(), 0); }},
    {"dropped", [](WindowCuts& c) { return keep(c.drops, c.record->dropped.size(), 0); }},
};

void write_totals(JsonWriter& json, const StallTotals& totals) {
  json.field("seen", totals.seen);
  json.field("seen_ns", totals.seen_ns);
  json.field("kept", totals.kept);
}

void write_groups(JsonWriter& json, const WindowRecord& record, const WindowCuts& cuts) {
  if (const size_t n = std::min(cuts.strata, record.strata.size())) {
    json.begin_array("strata");
    for (size_t i = 0; i < n; ++i) {
      const StratumTotals& stratum = record.strata[i];
      json.begin_object();
      json.field("service", stratum.service);
      json.field("cause", cause_name(stratum.cause));
      write_totals(json, stratum.stalls);
      json.end_object();
    }
    json.end_array();
  }
  if (record.strata_dropped) json.field("strata_dropped", record.strata_dropped);
  if (const size_t n = std::min(cuts.capped, record.capped.size())) {
    json.begin_array("capped");
    for (size_t i = 0; i < n; ++i) {
      json.begin_object();
      json.field("fingerprint", record.capped[i].fingerprint);
      write_totals(json, record.capped[i].stalls);
      json.end_object();
    }
    json.end_array();
  }
}

void write_cost(JsonWriter& json, const WindowRecord& record) {
  json.field("own_cpu_ns", record.own_cpu_ns);
  json.field("bpf_run_ns", record.bpf_run_ns);
  if (record.bpf_run_ns && record.bpf_estimated) json.field("bpf_estimated", true);
  json.field("resident_bytes", record.resident_bytes);
  json.begin_object("budget");
  json.field("level", record.budget.level);
  json.field("step", record.budget.step);
  json.field("reason", record.budget.reason);
  json.field("limit", record.budget.limit);
  json.field("used", record.budget.used);
  if (record.budget.memory_limit_bytes) json.field("memory_limit_bytes", record.budget.memory_limit_bytes);
  json.end_object();
}

void render(std::string& line, WindowCuts& cuts, const HostInfo& host, const Truncated& truncated) {
  const WindowRecord& record = *cuts.record;
  line.clear();
  JsonWriter json(line, cuts.text_limit);
  json.begin_object();
  json.field("schema", "looptrace.window/1");
  json.field("time", format_time(record.time_ns));
  write_host(json, host);
  json.field("window", record.number);
  json.field("start", format_time(record.start_ns));
  json.field("end", format_time(record.end_ns));
  json.field("active", record.active);
  json.field("probability", record.probability);
  json.field("attached_ns", record.attached_ns);
  json.field("threshold_ns", record.threshold_ns);
  write_totals(json, record.stalls);
  if (!record.dropped.empty() && cuts.drops) {
    json.begin_object("dropped");
    for (const auto& [reason, n] : record.dropped) json.field(reason, n);
    json.end_object();
  }
  if (record.cut) json.field("cut", record.cut);
  write_groups(json, record, cuts);
  write_cost(json, record);
  json.field("threads", record.threads);
  if (!truncated.empty()) write_truncated(json, truncated);
  json.end_object();
  line += '\n';
  cuts.longest_text = json.longest_text();
}

}  // namespace

void write_window(std::string& line, const WindowRecord& record, const HostInfo& host, size_t max_line) {
  fit_line<WindowCuts>(line, std::max(max_line, kLeastMaxLine), WindowCuts{&record}, kSteps,
                       [&](std::string& out, WindowCuts& cuts, const Truncated& truncated) {
                         render(out, cuts, host, truncated);
                       });
}

}  // namespace looptrace
