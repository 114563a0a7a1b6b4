// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/window_keeper.h"
#include "base/result.h"
#include "cli/options.h"
#include "targets/service.h"

namespace looptrace {

/// All that `looptrace agent` can be told. packaging/looptrace.conf documents every key.
struct AgentConfig {
  Options trace;          ///< targets, threshold, hook, output, redaction: as on the command line
  WindowOptions windows;  ///< sampling and budget; its threshold and source_lines follow `trace`
  std::vector<ServiceRule> services;
  bool hash_host = false, hash_ids = false;
  std::string hash_key;
  std::optional<ListenAddress> metrics_listen;  ///< 127.0.0.1:9464 if nothing else is said
  std::string metrics_textfile;                 ///< empty: none
  std::optional<HttpUrl> otlp;
  std::map<std::string, std::vector<std::string>> given;  ///< what was set, by key
};

/// Both trace and write alike: from one to the other, sampling and budget can be changed while tracing.
bool only_sampling_differs(const AgentConfig& a, const AgentConfig& b);

/// What was set of these keys ("trace.interval") and sections ("metrics.") is the same in both.
bool same_keys(const AgentConfig& a, const AgentConfig& b, std::initializer_list<std::string_view> prefixes);

/// Reads a configuration file, then the environment: LOOPTRACE_SAMPLING_WINDOW stands for [sampling] window.
/// Fault::usage with the file and the line, or the variable, and what would be right. An empty path: no file.
Result<AgentConfig> load_agent_config(const std::string& path,
                                      const std::map<std::string, std::string>& environment);

/// The variables of this process that begin with LOOPTRACE_.
std::map<std::string, std::string> looptrace_environment();

/// Every key, as "section.key".
std::vector<std::string> agent_config_keys();

}  // namespace looptrace
