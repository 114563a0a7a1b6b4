// SPDX-License-Identifier: Apache-2.0
#include "trace/commands.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "base/host.h"
#include "bpf/features.h"
#include "record/format.h"
#include "sinks/check_report.h"
#include "sinks/folded.h"
#include "sinks/jsonl.h"
#include "sinks/line_writer.h"
#include "sinks/listing.h"
#include "sinks/pretty.h"
#include "sinks/redacting.h"
#include "stacks/debuginfod.h"
#include "trace/prepare.h"
#include "trace/side_outputs.h"
#include "trace/target_check.h"
#include "trace/tracer.h"

namespace looptrace {

namespace {

constexpr uint64_t kListNs = 1'500'000'000;

}  // namespace

Result<void> run_trace(const Options& options, const std::string& version) {
  auto signals = take_signals();
  if (!signals) return signals.error();
  auto features = usable_features(options.hook);
  if (!features) return features.error();

  LineWriter writer = LineWriter::borrow(STDOUT_FILENO);
  if (!options.output.empty()) {
    auto file = LineWriter::append_to(options.output);
    if (!file) return file.error();
    writer = std::move(*file);
  }
  Format format = options.format;
  if (format == Format::automatic) format = isatty(writer.fd()) ? Format::pretty : Format::json;
  std::unique_ptr<Sink> sink;
  if (format == Format::pretty) {
    sink =
        std::make_unique<PrettySink>(writer, PrettyOptions{describe_terminal(writer.fd()), options.verbose});
  } else if (format == Format::folded) {
    sink = std::make_unique<FoldedSink>(writer);
  } else {
    sink = std::make_unique<JsonlSink>(writer, JsonlOptions{options.max_line, read_host_info()});
  }
  Sink* records = sink.get();
  std::unique_ptr<SideOutputs> sides;
  const SideOptions side_options{options.metrics,     options.textfile, options.otlp,
                                 options.interval_ns, read_host_info(), version};
  if (side_options.any()) {
    auto opened = SideOutputs::open(side_options);
    if (!opened) return opened.error();
    sides = std::move(*opened);
    records = &sides->counting(sides->exporting(*records));
    if (const auto at = sides->listening(); at && !options.quiet)
      std::fprintf(stderr, "looptrace: metrics on http://%s/metrics\n", at->text().c_str());
  }
  std::unique_ptr<RedactingSink> redacting;
  if (options.redact.any()) {
    redacting = std::make_unique<RedactingSink>(*records, options.redact);
    records = redacting.get();
  }

  TraceConfig config = to_trace_config(options, version, std::move(*features));
  if (options.debuginfod) {
    auto servers = Debuginfod::open();
    if (!servers) return servers.error();
    config.debuginfod = std::move(*servers);
  }
  Tracer tracer(std::move(config), *records);
  if (auto r = tracer.setup(); !r) return is_reader_gone(r.error()) ? Result<void>{} : r;
  if (!options.quiet && !tracer.has_targets() && !tracer.targets_ended()) {
    std::fprintf(stderr, "looptrace: no process matches yet; waiting for one to start\n");
  }
  auto ended = tracer.run(signals->get(), [&]() -> Result<void> {
    // A log that cannot be opened anew is no reason to lose records: the old one is kept.
    if (auto r = writer.reopen(); !r) std::fprintf(stderr, "looptrace: %s\n", r.error().message().c_str());
    return {};
  });
  if (!ended && !is_reader_gone(ended.error())) return ended;
  if (!options.quiet && ended && tracer.targets_ended()) {
    std::fprintf(stderr, "looptrace: what was traced has ended\n");
  }
  // The pretty format ends with its own summary, where the reader looks.
  if (!options.quiet && ended && format != Format::pretty) {
    std::fprintf(stderr, "looptrace: %s\n", summary_message(tracer.summary()).c_str());
  }
  return {};
}

Result<void> run_list(const Options& options, const std::string& version) {
  auto signals = take_signals();
  if (!signals) return signals.error();
  auto features = usable_features(options.hook);
  if (!features) return features.error();
  TraceConfig config = to_trace_config(options, version, std::move(*features));
  config.engine.stacks = false;
  LineWriter writer = LineWriter::borrow(STDOUT_FILENO);
  FoldedSink silent(writer);  // writes nothing but stalls, of which `observe` reports none
  Tracer tracer(std::move(config), silent);
  if (auto r = tracer.setup(); !r) return r;
  const uint64_t window = options.duration_ns.value_or(kListNs);
  tracer.observe(window, signals->get());
  const std::vector<LoopListing> loops = tracer.listing(window);
  Format format = options.format;
  if (format == Format::automatic) format = isatty(STDOUT_FILENO) ? Format::pretty : Format::json;
  Result<void> written;
  if (format == Format::pretty) {
    written = writer.write(render_listing(loops, describe_terminal(STDOUT_FILENO)));
  } else {
    std::string line;
    const HostInfo host = read_host_info();
    for (const LoopListing& loop : loops) {
      write_loop_info(line, loop, host, options.max_line);
      written = writer.write(line);
      if (!written) break;
    }
  }
  if (options.verbose) {
    for (const std::string& line : tracer.not_loops()) std::fprintf(stderr, "not a loop: %s\n", line.c_str());
  }
  if (!written && is_reader_gone(written.error())) return {};
  return written;
}

Result<void> run_check(const Options& options, bool json) {
  auto features = probe_features();
  Result<void> targets;
  for (const uint32_t pid : options.targets.pids) {
    auto found = check_target(ProcFs(), static_cast<pid_t>(pid));
    if (found.empty() && targets)
      targets = Error{"no process has the id " + std::to_string(pid), 0, Fault::no_such_target};
    features.insert(features.end(), found.begin(), found.end());
  }
  LineWriter writer = LineWriter::borrow(STDOUT_FILENO);
  auto written =
      writer.write(json ? check_json(features) : render_check(features, describe_terminal(STDOUT_FILENO)));
  if (!written && !is_reader_gone(written.error())) return written;
  if (auto r = require_features(features); !r) return r;
  return targets;
}

}  // namespace looptrace
