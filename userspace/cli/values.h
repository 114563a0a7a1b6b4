// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/options.h"

namespace looptrace {

// One option's text each, to what it means. Errors are Fault::usage and begin with the text that was given.

Result<uint32_t> parse_pid(const std::string& text);
Result<std::string> parse_name(const std::string& text);    ///< not blank
Result<std::string> parse_file(const std::string& text);    ///< not blank
Result<std::string> parse_cgroup(const std::string& text);  ///< absolute
Result<std::string> parse_container(
    const std::string& text);                                 ///< 4 to 64 hex digits, "containerd://" allowed
Result<uint64_t> parse_threshold(const std::string& text);    ///< from 100us on; a bare number is ms
Result<uint64_t> parse_seconds(const std::string& text);      ///< above 0; a bare number is s
Result<uint64_t> parse_interval(const std::string& text);     ///< from 100ms on; a bare number is s
Result<uint64_t> parse_count(const std::string& text);        ///< above 0
Result<uint64_t> parse_max_line(const std::string& text);     ///< 1024 to 16M
Result<uint64_t> parse_ring(const std::string& text);         ///< a power of two, 64k to 1G
Result<std::string> parse_textfile(const std::string& text);  ///< ends in ".prom"
Result<Format> parse_format(const std::string& text);
Result<HookMode> parse_hook(const std::string& text);
Result<RedactRules> parse_redact(const std::vector<std::string>& texts);  ///< lists, which may repeat

}  // namespace looptrace
