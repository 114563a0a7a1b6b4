// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/http_url.h"
#include "base/listen_address.h"
#include "base/result.h"
#include "record/redact.h"

namespace looptrace {

/// Which loops: those that any of these names. All empty = every loop on the host.
struct TargetOptions {
  std::vector<uint32_t> pids, tids;
  std::vector<std::string> comms;       ///< process or thread names; may be globs
  std::vector<std::string> exes;        ///< globs over paths
  std::vector<std::string> cgroups;     ///< "/system.slice/nginx.service"
  std::vector<std::string> containers;  ///< ids or prefixes of at least 4 digits, lower case hex
  bool all = false;                     ///< --all was given

  bool empty() const;
  /// As given, for looptrace.start: "pid=101", "comm=server".
  std::vector<std::string> describe() const;
};

enum class Format {
  automatic,  ///< pretty on a terminal, json elsewhere
  json,
  pretty,
  folded,
};

enum class HookMode { automatic, always, never };
const char* hook_mode_name(HookMode mode);

struct Options {
  TargetOptions targets;
  uint64_t threshold_ns = 50'000'000;
  std::optional<uint64_t> duration_ns;  ///< absent = until stopped
  std::optional<uint64_t> max_events;
  uint64_t interval_ns = 10'000'000'000;
  std::string output;  ///< file to append to; empty = standard output
  Format format = Format::automatic;
  uint64_t max_line = 8000;
  HookMode hook = HookMode::automatic;
  bool stacks = true;
  RedactRules redact;
  std::optional<ListenAddress> metrics;  ///< serve Prometheus metrics there
  std::string textfile;                  ///< write them to this file; empty = no file
  std::optional<HttpUrl> otlp;           ///< send records to this collector
  bool verbose = false;
  bool quiet = false;

  // For those who must: not part of the short help.
  std::optional<uint32_t> sample_hz;  ///< absent = chosen by the threshold; 0 = no samples
  std::optional<uint32_t> max_loops;
  std::optional<uint64_t> ring_bytes;  ///< a power of two
  bool source_lines = true;
  bool debuginfod = false;  ///< ask the servers of DEBUGINFOD_URLS for debug files
};

enum class Action { trace, list, check, schema, agent, print };

/// What the command line asks for.
struct Command {
  Action action = Action::trace;
  Options options;            ///< trace; list and check use those of their own that they offer
  bool json = false;          ///< check --json
  std::string schema_record;  ///< schema: empty = all
  std::string config;         ///< agent: its file; empty = none
  bool check_config = false;  ///< agent
  std::string text;           ///< print: the help or the version, for standard output; exit 0
};

/// Never exits and prints nothing. Wrong input is Fault::usage, its message for "looptrace: ..." on
/// standard error: what was given, why it is wrong, what would be right.
Result<Command> parse_command_line(int argc, const char* const* argv, const std::string& version);

}  // namespace looptrace
