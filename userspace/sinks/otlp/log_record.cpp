// SPDX-License-Identifier: Apache-2.0
#include "sinks/otlp/log_record.h"

#include <algorithm>
#include <map>
#include <vector>

#include "record/culprit.h"
#include "record/format.h"
#include "sinks/otlp/attributes.h"

namespace looptrace {
namespace {

// A line of a log, not a dump: the collectors' limits are in megabytes, their users' in cents.
constexpr size_t kLongestText = 8000;
constexpr size_t kMostFrames = 64;

struct Level {
  int number;
  const char* text;
};
constexpr Level kInfo{9, "INFO"}, kWarn{13, "WARN"}, kError{17, "ERROR"};

Level level_of(Severity severity) {
  switch (severity) {
    case Severity::error:
      return kError;
    case Severity::warn:
      return kWarn;
    case Severity::info:
      break;
  }
  return kInfo;
}

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

template <typename Fill>
std::string array(Fill fill) {
  std::string out = "[";
  JsonWriter json(out, kLongestText);
  OtlpAttributes attributes(json);
  fill(attributes);
  return out + ']';
}

void add_host(OtlpAttributes& to, const HostInfo& host) {
  to.text("host.name", host.name);
  to.text("host.id", host.id);
}

std::string own_resource(const HostInfo& host) {
  return array([&](OtlpAttributes& to) {
    add_host(to, host);
    to.text("service.name", "looptrace");
  });
}

template <typename Record>
std::string resource_of(const Record& record, const HostInfo& host) {
  return array([&](OtlpAttributes& to) {
    const ProcessInfo& process = record.process;
    const ContainerInfo& container = record.container;
    add_host(to, host);
    to.text("service.name", !record.service.empty() ? record.service
                            : process.comm.empty()  ? "unknown_service"
                                                    : process.comm);
    to.integer("process.pid", process.pid);
    to.text("process.executable.name", base_name(process.executable));
    to.text("process.executable.path", process.executable);
    to.text("process.command_line", process.command_line);
    to.text("process.creation.time", process.start_time);
    to.text("process.runtime.description", process.runtime);
    to.text("process.linux.cgroup", process.cgroup);
    to.text("container.id", container.id);
    to.text("container.name", container.name);
    to.text("k8s.namespace.name", container.k8s_namespace);
    to.text("k8s.pod.name", container.k8s_pod);
    to.text("k8s.container.name", container.k8s_container);
  });
}

template <typename Fill>
std::string log_record(const char* event, uint64_t time_ns, uint64_t observed_ns, Level level,
                       const std::string& body, Fill fill) {
  std::string out;
  JsonWriter json(out, kLongestText);
  json.begin_object();
  json.field("timeUnixNano", std::to_string(time_ns));
  json.field("observedTimeUnixNano", std::to_string(observed_ns));
  json.field("severityNumber", level.number);
  json.field("severityText", level.text);
  json.field("eventName", event);
  json.begin_object("body");
  json.field("stringValue", body);
  json.end_object();
  json.begin_array("attributes");
  OtlpAttributes attributes(json);
  fill(attributes);
  json.end_array();
  json.end_object();
  return out;
}

// Innermost frame first, one a line.
std::string stack_text(const Stack& stack) {
  std::string text;
  const size_t n = std::min(stack.frames.size(), kMostFrames);
  for (size_t i = 0; i < n; ++i) {
    const Frame& frame = stack.frames[i];
    text += frame.function.empty() ? "[unknown]" : frame.function;
    if (!frame.file.empty()) {
      text += " (" + frame.file + (frame.line > 0 ? ':' + std::to_string(frame.line) : "") + ')';
    } else if (!frame.module.empty()) {
      text += " (" + frame.module + ')';
    }
    text += '\n';
  }
  if (n < stack.frames.size()) text += "... " + std::to_string(stack.frames.size() - n) + " frames\n";
  return text;
}

void add_culprit(OtlpAttributes& to, const Stall& stall) {
  if (stall.culprit) {
    to.text("code.function.name", stall.culprit->function);
    to.text("code.file.path", stall.culprit->file);
    if (stall.culprit->line > 0) to.integer("code.line.number", static_cast<uint64_t>(stall.culprit->line));
  }
  if (stall.stacks.empty()) return;
  const auto place = choose_culprit(stall);
  to.text("code.stacktrace", stack_text(stall.stacks[place ? place->stack : 0]));
}

void add_address(OtlpAttributes& to, const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return;
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const std::string port = address.substr(colon + 1);
  to.text("network.peer.address", host);
  const bool number =
      !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
  if (number) to.integer("network.peer.port", std::stoul(port));
}

void add_wait(OtlpAttributes& to, const Wait& wait) {
  to.text("looptrace.wait.syscall", wait.syscall);
  to.integer("looptrace.wait.count", wait.count);
  to.integer("looptrace.wait.duration_ns", wait.duration_ns);
  if (wait.target) {
    to.text("looptrace.wait.target.kind", wait.target->kind);
    to.text("file.path", wait.target->path);
    if (wait.target->kind == "tcp" || wait.target->kind == "udp")
      to.text("network.transport", wait.target->kind);
    add_address(to, wait.target->peer);
  }
  if (wait.woken_by) {
    to.text("looptrace.wait.woken_by.comm", wait.woken_by->comm);
    to.integer("looptrace.wait.woken_by.pid", wait.woken_by->pid);
  }
  if (wait.held_by) to.text("looptrace.wait.held_by.comm", wait.held_by->thread.comm);
}

// Of a window, or of the whole run.
template <typename Record>
void add_losses_and_cost(OtlpAttributes& to, const Record& record) {
  for (const auto& [reason, n] : record.dropped) to.integer("looptrace.dropped." + reason, n);
  to.integer("looptrace.own_cpu_ns", record.own_cpu_ns);
  if (record.bpf_run_ns) to.integer("looptrace.bpf_run_ns", *record.bpf_run_ns);
  to.integer("looptrace.resident_bytes", record.resident_bytes);
}

template <typename Record>
void add_loop(OtlpAttributes& to, const Record& record) {
  to.integer("thread.id", record.thread_id);
  to.text("thread.name", record.thread_name);
  to.text("looptrace.loop.kind", record.loop.kind);
  to.integer("looptrace.loop.fd", record.loop.fd);
}

void add_percentiles(OtlpAttributes& to, const std::string& name, const std::optional<Percentiles>& of) {
  if (!of) return;
  to.integer(name + ".p50", of->p50);
  to.integer(name + ".p90", of->p90);
  to.integer(name + ".p99", of->p99);
  to.integer(name + ".max", of->max);
}

}  // namespace

OtlpRecord otlp_stall(const Stall& record, const HostInfo& host) {
  const uint64_t end = record.time_ns + record.duration_ns;
  return {resource_of(record, host),
          log_record("looptrace.stall", record.time_ns, end, level_of(severity_of(record)),
                     stall_message(record), [&](OtlpAttributes& to) {
                       to.text("looptrace.id", record.id);
                       to.text("looptrace.state", record.state == StallState::open ? "open" : "closed");
                       to.text("looptrace.ended_by", record.ended_by);
                       add_loop(to, record);
                       to.integer("looptrace.duration_ns", record.duration_ns);
                       to.integer("looptrace.threshold_ns", record.threshold_ns);
                       if (record.start_uncertain_ns)
                         to.integer("looptrace.start_uncertain_ns", record.start_uncertain_ns);
                       to.integer("looptrace.time_ns.on_cpu", record.on_cpu_ns);
                       to.integer("looptrace.time_ns.runqueue", record.runqueue_ns);
                       to.integer("looptrace.time_ns.blocked", record.blocked_ns);
                       to.text("looptrace.cause.kind", cause_name(record.cause));
                       to.text("looptrace.cause.confidence", confidence_name(record.confidence));
                       to.text("looptrace.cause.detail", record.cause_detail);
                       add_culprit(to, record);
                       if (record.task) {
                         to.text("looptrace.task.name", record.task->name);
                         to.text("looptrace.task.coroutine", record.task->coroutine);
                         to.text("looptrace.task.handler", record.task->handler);
                       }
                       if (!record.waits.empty()) add_wait(to, record.waits.front());
                       if (record.preempted_by)
                         to.text("looptrace.preempted_by.comm", record.preempted_by->comm);
                       to.text("looptrace.fingerprint", record.fingerprint);
                       to.real("looptrace.sample.weight", record.sample_weight);
                       if (record.sample) to.integer("looptrace.sample.window", record.sample->window);
                     })};
}

OtlpRecord otlp_loop(const LoopRecord& record, const HostInfo& host) {
  const double whole = static_cast<double>(record.busy_ns) + static_cast<double>(record.idle_ns);
  const double busy = whole > 0 ? static_cast<double>(record.busy_ns) / whole : 0;
  const std::string body =
      record.process.comm + '[' + std::to_string(record.thread_id) + "] " + std::to_string(record.stalls) +
      (record.stalls == 1 ? " stall in " : " stalls in ") + format_duration(record.interval_ns);
  return {resource_of(record, host),
          log_record("looptrace.loop", record.time_ns, record.time_ns, kInfo, body, [&](OtlpAttributes& to) {
            add_loop(to, record);
            to.integer("looptrace.interval_ns", record.interval_ns);
            to.integer("looptrace.hooked_ns", record.hooked_ns);
            if (record.hooked_ns) to.integer("looptrace.iterations", record.iterations);
            to.integer("looptrace.busy_ns", record.busy_ns);
            to.integer("looptrace.idle_ns", record.idle_ns);
            to.real("looptrace.utilization", busy);
            if (record.hooked_ns) add_percentiles(to, "looptrace.iteration_ns", record.iteration);
            add_percentiles(to, "looptrace.wakeup_delay_ns", record.wakeup_delay);
            to.integer("looptrace.stalls", record.stalls);
            to.integer("looptrace.stall_ns", record.stall_ns);
            to.integer("looptrace.unconfirmed", record.unconfirmed);
          })};
}

OtlpRecord otlp_window(const WindowRecord& record, const HostInfo& host) {
  const std::string body = "window " + std::to_string(record.number) +
                           (record.active ? ": " + std::to_string(record.stalls.seen) + " stalls, " +
                                                std::to_string(record.stalls.kept) + " kept"
                                          : ": not traced");
  return {own_resource(host), log_record("looptrace.window", record.start_ns, record.time_ns, kInfo, body,
                                         [&](OtlpAttributes& to) {
                                           to.integer("looptrace.window", record.number);
                                           to.text("looptrace.active", record.active ? "true" : "false");
                                           to.real("looptrace.probability", record.probability);
                                           to.integer("looptrace.attached_ns", record.attached_ns);
                                           to.integer("looptrace.threshold_ns", record.threshold_ns);
                                           to.integer("looptrace.seen", record.stalls.seen);
                                           to.integer("looptrace.seen_ns", record.stalls.seen_ns);
                                           to.integer("looptrace.kept", record.stalls.kept);
                                           to.integer("looptrace.cut", record.cut);
                                           add_losses_and_cost(to, record);
                                           to.text("looptrace.budget.level", record.budget.level);
                                           to.text("looptrace.budget.reason", record.budget.reason);
                                           to.real("looptrace.budget.used", record.budget.used);
                                           to.real("looptrace.budget.limit", record.budget.limit);
                                         })};
}

OtlpRecord otlp_start(const StartRecord& record, const HostInfo& host) {
  return {own_resource(host), log_record("looptrace.start", record.time_ns, record.time_ns, kInfo,
                                         "looptrace " + record.version + " started", [&](OtlpAttributes& to) {
                                           std::string targets;
                                           for (const std::string& target : record.targets)
                                             targets += (targets.empty() ? "" : " ") + target;
                                           to.text("looptrace.version", record.version);
                                           to.text("looptrace.kernel", record.kernel);
                                           to.text("looptrace.targets", targets);
                                           to.integer("looptrace.threshold_ns", record.threshold_ns);
                                           to.text("looptrace.hook", record.hook);
                                         })};
}

OtlpRecord otlp_warning(const WarningRecord& record, const HostInfo& host) {
  return {own_resource(host),
          log_record("looptrace.warning", record.time_ns, record.time_ns, kWarn, record.message,
                     [&](OtlpAttributes& to) { to.text("looptrace.code", record.code); })};
}

OtlpRecord otlp_summary(const SummaryRecord& record, const HostInfo& host) {
  return {own_resource(host), log_record("looptrace.summary", record.time_ns, record.time_ns, kInfo,
                                         summary_message(record), [&](OtlpAttributes& to) {
                                           to.integer("looptrace.elapsed_ns", record.elapsed_ns);
                                           to.integer("looptrace.loops", record.loops);
                                           to.integer("looptrace.stalls_seen", record.stalls_seen);
                                           to.integer("looptrace.stalls_emitted", record.stalls_emitted);
                                           add_losses_and_cost(to, record);
                                         })};
}

std::string otlp_request(std::span<const OtlpRecord> records, const std::string& version) {
  std::map<std::string_view, std::vector<const OtlpRecord*>> by_resource;
  for (const OtlpRecord& record : records) by_resource[record.resource].push_back(&record);
  std::string scope;
  JsonWriter json(scope, kLongestText);
  json.begin_object();
  json.field("name", "looptrace");
  json.field("version", version);
  json.end_object();
  std::string out = R"({"resourceLogs":[)";
  for (const auto& [resource, of_resource] : by_resource) {
    if (out.back() != '[') out += ',';
    out += R"({"resource":{"attributes":)";
    out += resource;
    out += R"(},"scopeLogs":[{"scope":)" + scope + R"(,"logRecords":[)";
    for (const OtlpRecord* record : of_resource) {
      if (out.back() != '[') out += ',';
      out += record->log_record;
    }
    out += "]}]}";
  }
  return out + "]}";
}

}  // namespace looptrace
