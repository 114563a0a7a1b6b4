// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace looptrace {

/// One `key = value` of a configuration file, with where it stands.
struct ConfigEntry {
  std::string section;  ///< "sampling" below "[sampling]"; empty above the first section
  std::string key;
  std::vector<std::string> values;  ///< one, or those of a list
  int line = 0;

  std::string name() const { return section.empty() ? key : section + "." + key; }
};

/// Reads TOML as far as CLI11 does: sections, strings, numbers, booleans, lists on one line, comments. A
/// value that holds a blank, a comma or an equals sign needs quotes. Fault::usage with `path` and the line.
Result<std::vector<ConfigEntry>> parse_config(const std::string& text, const std::string& path);

}  // namespace looptrace
