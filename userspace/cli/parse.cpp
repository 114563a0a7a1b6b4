// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "cli/options.h"
#include "cli/units.h"
#include "cli/values.h"

namespace looptrace {
namespace {

Error usage(std::string what) { return Error{std::move(what), 0, Fault::usage}; }

std::string in_quotes(std::string_view text) { return '\'' + std::string(text) + '\''; }

// Options as they stand on the command line; what they mean is decided after all of them are known.
struct RawTargets {
  std::vector<std::string> pids, tids, comms, exes, cgroups, containers;
  bool all = false;
};

struct RawOptions {
  RawTargets targets;
  std::string threshold, duration, max_events, interval, output, format, max_line, hook, sample_hz, max_loops,
      ring_bytes, metrics, textfile, otlp;
  std::vector<std::string> redact;
  bool no_stacks = false, no_source_lines = false, debuginfod = false, verbose = false, quiet = false;
  bool json = false;
  std::string schema_record;
  std::string config;
  bool check_config = false;
};

// Runs `convert` on `text` if it was given; an error is prefixed by the option that it is about.
template <typename Convert, typename Store>
std::optional<Error> take(const char* option, const std::string& text, bool given, Convert convert,
                          Store store) {
  if (!given) return std::nullopt;
  auto value = convert(text);
  if (!value) return usage(std::string(option) + " " + value.error().what);
  store(*value);
  return std::nullopt;
}

template <typename T>
std::optional<Error> take_each(const char* option, const std::vector<std::string>& texts,
                               Result<T> (*parse)(const std::string&), std::vector<T>& values) {
  for (const std::string& text : texts) {
    auto value = parse(text);
    if (!value) return usage(std::string(option) + " " + value.error().what);
    values.push_back(std::move(*value));
  }
  return std::nullopt;
}

std::optional<Error> take_targets(const RawTargets& raw, TargetOptions& targets) {
  if (auto error = take_each("--pid", raw.pids, parse_pid, targets.pids)) return error;
  if (auto error = take_each("--tid", raw.tids, parse_pid, targets.tids)) return error;
  if (auto error = take_each("--comm", raw.comms, parse_name, targets.comms)) return error;
  if (auto error = take_each("--exe", raw.exes, parse_name, targets.exes)) return error;
  if (auto error = take_each("--cgroup", raw.cgroups, parse_cgroup, targets.cgroups)) return error;
  if (auto error = take_each("--container", raw.containers, parse_container, targets.containers))
    return error;
  targets.all = raw.all;
  if (targets.all && !targets.empty()) {
    return usage("--all names every loop, so it cannot stand with --" + targets.describe().front() +
                 "; leave one of them out");
  }
  return std::nullopt;
}

// A flag says nothing where another makes it moot: better refused than silently dropped.
std::optional<Error> check_combinations(const Options& options) {
  if (options.quiet && options.verbose)
    return usage("-q and -v contradict each other; leave one of them out");
  if (!options.stacks && options.format == Format::folded) {
    return usage("-f folded prints stacks and --no-stacks takes none; leave one of them out");
  }
  if (!options.stacks && options.sample_hz.value_or(0) > 0) {
    return usage("--sample-hz samples stacks and --no-stacks takes none; leave one of them out");
  }
  return std::nullopt;
}

// Each occurrence takes one value, so that what follows is not swallowed.
void add_list(CLI::App& app, const char* names, std::vector<std::string>& values, const char* type,
              const char* help) {
  app.add_option(names, values, help)->allow_extra_args(false)->type_name(type)->group("Targets");
}

// The last one wins, so that a wrapper's options can be overruled.
CLI::Option* add_value(CLI::App& app, const char* names, std::string& value, const char* type,
                       const char* help) {
  return app.add_option(names, value, help)->take_last()->type_name(type);
}

void offer_targets(CLI::App& app, RawTargets& raw) {
  add_list(app, "-p,--pid", raw.pids, "PID", "this process");
  add_list(app, "-t,--tid", raw.tids, "TID", "this thread");
  add_list(app, "-c,--comm", raw.comms, "NAME|GLOB", "processes and threads of this name, later ones too");
  add_list(app, "--exe", raw.exes, "GLOB", "processes whose executable's path matches");
  add_list(app, "--cgroup", raw.cgroups, "PATH", "processes in this cgroup or below");
  add_list(app, "--container", raw.containers, "ID|PREFIX", "processes of this container");
  app.add_flag("--all", raw.all, "every loop on this host (the default)")->group("Targets");
}

void offer_trace(CLI::App& app, RawOptions& raw) {
  offer_targets(app, raw.targets);
  add_value(app, "-m,--threshold", raw.threshold, "TIME",
            "report iterations from this long on; bare number = ms [50ms]");
  add_value(app, "-d,--duration", raw.duration, "TIME", "stop after this time; bare number = s");
  add_value(app, "-n,--max-events", raw.max_events, "N", "stop after N stalls");
  add_value(app, "-i,--interval", raw.interval, "TIME", "loop statistics this often; bare number = s [10s]");
  add_value(app, "-o,--output", raw.output, "FILE", "append to FILE; SIGHUP reopens it");
  add_value(app, "-f,--format", raw.format, "FORMAT",
            "json, pretty, folded [pretty on a terminal, else json]");
  add_value(app, "--max-line", raw.max_line, "BYTES", "longest line of JSON [8000]");
  add_value(app, "--hook", raw.hook, "WHEN", "hook the loops' polls: auto, always, never [auto]");
  app.add_flag("--no-stacks", raw.no_stacks, "take no stacks");
  app.add_option("--redact", raw.redact, "leave out paths, args, addresses (a list)")
      ->allow_extra_args(false)
      ->type_name("WHAT");
  add_value(app, "--metrics", raw.metrics, "ADDR:PORT", "serve Prometheus metrics there, on /metrics");
  add_value(app, "--textfile", raw.textfile, "FILE", "write them to FILE, for node_exporter");
  add_value(app, "--otlp", raw.otlp, "URL", "send records as logs to an OpenTelemetry collector (OTLP/HTTP)");
  app.add_flag("-v,--verbose", raw.verbose, "tell more on standard error");
  app.add_flag("-q,--quiet", raw.quiet, "tell only errors on standard error");
  const char* advanced = "Advanced";
  add_value(app, "--sample-hz", raw.sample_hz, "N", "stack samples of late loops a second and CPU; 0 = none")
      ->group(advanced);
  add_value(app, "--max-loops", raw.max_loops, "N", "loops that can be traced at once")->group(advanced);
  add_value(app, "--ring-bytes", raw.ring_bytes, "SIZE", "ring buffer between kernel and looptrace")
      ->group(advanced);
  app.add_flag("--no-source-lines", raw.no_source_lines,
               "do not read debug data for lines and inlined functions")
      ->group(advanced);
  app.add_flag("--debuginfod", raw.debuginfod,
               "fetch missing debug files from the servers in DEBUGINFOD_URLS")
      ->group(advanced);
}

void offer_list(CLI::App& app, RawOptions& raw) {
  offer_targets(app, raw.targets);
  add_value(app, "-d,--duration", raw.duration, "TIME", "watch the loops for this time; bare number = s");
  add_value(app, "-f,--format", raw.format, "FORMAT", "json, pretty [pretty on a terminal, else json]");
  app.add_flag("-v,--verbose", raw.verbose,
               "say on standard error why other threads that poll are not loops");
}

Result<Options> make_options(const RawOptions& raw, const CLI::App& app) {
  const auto given = [&](const char* name) {
    const CLI::Option* option = app.get_option_no_throw(name);
    return option && option->count() > 0;
  };
  Options o;
  std::optional<Error> error = take_targets(raw.targets, o.targets);
  const auto value = [&](const char* name, const std::string& text, auto parse, auto store) {
    if (!error) error = take(name, text, given(name), parse, store);
  };
  value("--threshold", raw.threshold, parse_threshold, [&](uint64_t ns) { o.threshold_ns = ns; });
  value("--duration", raw.duration, parse_seconds, [&](uint64_t ns) { o.duration_ns = ns; });
  value("--max-events", raw.max_events, parse_count, [&](uint64_t n) { o.max_events = n; });
  value("--interval", raw.interval, parse_interval, [&](uint64_t ns) { o.interval_ns = ns; });
  value("--output", raw.output, parse_file,
        [&](const std::string& path) { o.output = path == "-" ? "" : path; });
  value("--format", raw.format, parse_format, [&](Format format) { o.format = format; });
  value("--max-line", raw.max_line, parse_max_line, [&](uint64_t bytes) { o.max_line = bytes; });
  value("--hook", raw.hook, parse_hook, [&](HookMode mode) { o.hook = mode; });
  value("--metrics", raw.metrics, parse_listen_address, [&](const ListenAddress& at) { o.metrics = at; });
  value("--textfile", raw.textfile, parse_textfile, [&](const std::string& path) { o.textfile = path; });
  value("--otlp", raw.otlp, parse_http_url, [&](const HttpUrl& url) { o.otlp = url; });
  const auto number = [](uint64_t least, uint64_t most) {
    return [=](const std::string& text) { return parse_number(text, least, most); };
  };
  value("--sample-hz", raw.sample_hz, number(0, 1000),
        [&](uint64_t n) { o.sample_hz = static_cast<uint32_t>(n); });
  value("--max-loops", raw.max_loops, number(1, 1'000'000),
        [&](uint64_t n) { o.max_loops = static_cast<uint32_t>(n); });
  value("--ring-bytes", raw.ring_bytes, parse_ring, [&](uint64_t bytes) { o.ring_bytes = bytes; });
  if (error) return *error;
  const auto redact = parse_redact(raw.redact);
  if (!redact) return redact.error();
  o.redact = *redact;
  o.stacks = !raw.no_stacks;
  o.source_lines = !raw.no_source_lines;
  o.debuginfod = raw.debuginfod;
  o.verbose = raw.verbose;
  o.quiet = raw.quiet;
  if (const auto wrong = check_combinations(o)) return *wrong;
  return o;
}

struct CommandName {
  std::string_view name;
  Action action;
  const char* description;
};

constexpr CommandName kCommands[] = {
    {"trace", Action::trace,
     "Finds what blocks event loops. Prints a record for each iteration that takes too long."},
    {"list", Action::list, "Lists the event loops on this host."},
    {"check", Action::check, "Tells what this kernel, these privileges and these targets allow."},
    {"schema", Action::schema, "Prints the JSON Schemas of the records."},
    {"agent", Action::agent,
     "Watches this host for good: samples stalls in windows of time, within a budget of CPU and memory."},
};
constexpr std::string_view kReserved[] = {"top", "report", "explain", "run"};

constexpr const char* kCommandList =
    "Commands:\n"
    "  trace [TARGETS] [OPTIONS]   trace event loops; the default, its name may be left out\n"
    "  list [TARGETS]              event loops on this host\n"
    "  check [--json]              what this kernel and these privileges allow\n"
    "  schema [RECORD]             the JSON Schemas of the records\n"
    "  agent --config FILE         watch this host for good: sampling, budget\n"
    "\n"
    "Examples:\n"
    "  looptrace -p 4711 -m 20ms       stalls of 20 ms and more in process 4711\n"
    "  looptrace -c 'web-*' -d 60s     the same for all processes of a name, for a minute\n"
    "  looptrace -f json -o stalls.jsonl\n"
    "\n"
    "Exit status: 0 done, 1 failure, 2 usage, 3 no such target, 4 privilege or kernel feature missing.\n";

void offer(CLI::App& app, Action action, RawOptions& raw) {
  switch (action) {
    case Action::trace:
      offer_trace(app, raw);
      break;
    case Action::list:
      offer_list(app, raw);
      break;
    case Action::check:
      offer_targets(app, raw.targets);
      app.add_flag("--json", raw.json, "print JSON");
      break;
    case Action::schema:
      app.add_option("RECORD", raw.schema_record,
                     "start, stall, loop, warning, summary, ...; all if left out")
          ->type_name("");
      break;
    case Action::agent:
      add_value(app, "--config", raw.config, "FILE",
                "what to do; without it the defaults, with LOOPTRACE_SECTION_KEY variables over both");
      app.add_flag("--check-config", raw.check_config, "say whether FILE is right, and end");
      break;
    case Action::print:
      break;
  }
}

// CLI11's messages, in the words of the rest.
Error explain(const CLI::ParseError& error, const CLI::App& app, const CommandName& command) {
  const std::string help =
      "try: looptrace " + (command.action == Action::trace ? "" : std::string(command.name) + " ") + "--help";
  if (dynamic_cast<const CLI::ExtrasError*>(&error)) {
    const std::vector<std::string> extras = app.remaining();
    const auto option = std::find_if(extras.begin(), extras.end(),
                                     [](const std::string& text) { return text.starts_with('-'); });
    if (option != extras.end()) return usage("there is no option " + *option + " here; " + help);
    const std::string& what = extras.front();
    const bool is_command = std::any_of(std::begin(kCommands), std::end(kCommands),
                                        [&](const CommandName& known) { return known.name == what; });
    if (is_command)
      return usage("the command " + in_quotes(what) + " must come first, as in: looptrace " + what);
    return usage("unexpected argument " + in_quotes(what) + "; processes are named by -p PID or -c NAME; " +
                 help);
  }
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error)) {
    const std::string what = error.what();  // "--pid: 1 required PID missing"
    return usage(what.substr(0, what.find(':')) + " needs a value; " + help);
  }
  return usage(std::string(error.what()) + "; " + help);
}

Result<Command> parse_one(const CommandName& which, std::vector<std::string> arguments,
                          const std::string& version) {
  const bool is_trace = which.action == Action::trace;
  CLI::App app(which.description, is_trace ? "looptrace" : "looptrace " + std::string(which.name));
  app.set_help_flag("-h,--help", "print this help");
  app.set_version_flag("--version", "looptrace " + version, "print the version");
  if (is_trace) app.footer(kCommandList);
  RawOptions raw;
  offer(app, which.action, raw);

  Command command;
  command.action = which.action;
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    command.action = Action::print;
    command.text = app.help();
    return command;
  } catch (const CLI::CallForVersion& version_text) {
    command.action = Action::print;
    command.text = std::string(version_text.what()) + "\n";
    return command;
  } catch (const CLI::ParseError& error) {
    return explain(error, app, which);
  }
  auto options = make_options(raw, app);
  if (!options) return options.error();
  if (which.action == Action::list && options->format == Format::folded) {
    return usage("--format 'folded' is for stacks, and list prints none; there are json and pretty");
  }
  command.options = std::move(*options);
  command.json = raw.json;
  command.schema_record = raw.schema_record;
  command.config = raw.config;
  command.check_config = raw.check_config;
  return command;
}

}  // namespace

Result<Command> parse_command_line(int argc, const char* const* argv, const std::string& version) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const CommandName* which = &kCommands[0];
  if (!arguments.empty() && !arguments[0].starts_with('-')) {
    const std::string& name = arguments[0];
    if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
      return usage("the command " + in_quotes(name) + " is not available in this version");
    }
    which = std::find_if(std::begin(kCommands), std::end(kCommands),
                         [&](const CommandName& command) { return command.name == name; });
    if (which == std::end(kCommands)) {
      return usage(
          "there is no command " + in_quotes(name) +
          "; there are trace, list, check, schema and agent (processes are named by -p PID or -c NAME)");
    }
    arguments.erase(arguments.begin());
  }
  return parse_one(*which, std::move(arguments), version);
}

}  // namespace looptrace
