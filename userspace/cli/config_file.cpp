// SPDX-License-Identifier: Apache-2.0
#include "cli/config_file.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>

#include "base/files.h"

namespace looptrace {
namespace {

Error wrong(const std::string& path, int line, const std::string& what) {
  return Error{path + ":" + std::to_string(line) + ": " + what, 0, Fault::usage};
}

bool is_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

// The line without its comment. CLI11 takes a '#' for one also inside quotes.
std::string_view without_comment(std::string_view line) {
  char quote = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (quote) {
      if (line[i] == quote) quote = 0;
    } else if (line[i] == '"' || line[i] == '\'') {
      quote = line[i];
    } else if (line[i] == '#') {
      return trim(line.substr(0, i));
    }
  }
  return trim(line);
}

// What CLI11 would read as something else than it says.
const char* trouble(std::string_view value) {
  if (value.empty()) return "has no value; write \"\" for an empty one";
  if (value.find('#') != value.npos) return "has a '#' in its value, which cannot be read";
  if (value[0] == '[' && value.back() != ']') return "has a list that does not end on its line";
  for (const char quote : {'"', '\''}) {
    if (std::count(value.begin(), value.end(), quote) % 2) return "has a quote that does not end";
  }
  return nullptr;
}

}  // namespace

Result<std::vector<ConfigEntry>> parse_config(const std::string& text, const std::string& path) {
  std::vector<ConfigEntry> entries;
  std::string section;
  int number = 0;
  for (const std::string_view raw : split(text, '\n')) {
    ++number;
    const std::string_view line = without_comment(raw);
    if (line.empty() || line[0] == ';') continue;
    if (line[0] == '[') {
      if (line.back() != ']' || !is_name(line.substr(1, line.size() - 2)))
        return wrong(path, number, "'" + std::string(line) + "' is no section; write [name]");
      section = line.substr(1, line.size() - 2);
      continue;
    }
    const size_t equals = line.find('=');
    const std::string key(trim(line.substr(0, equals)));
    if (equals == line.npos || !is_name(key))
      return wrong(path, number, "'" + std::string(line) + "' is neither 'key = value' nor '[section]'");
    const std::string_view value = trim(line.substr(equals + 1));
    if (const char* what = trouble(value)) return wrong(path, number, "'" + key + "' " + what);
    std::vector<CLI::ConfigItem> items;
    try {
      std::istringstream one{key + " = " +
                             std::string(value)};  // line by line: items do not say where they were
      items = CLI::ConfigTOML().from_config(one);
    } catch (const CLI::Error& error) {
      return wrong(path, number, error.what());
    }
    if (items.size() != 1) return wrong(path, number, "'" + std::string(line) + "' cannot be read");
    if (value == "\"\"" || value == "''" || value == "[]") items[0].inputs = {};
    entries.push_back({section, key, items[0].inputs, number});
  }
  return entries;
}

}  // namespace looptrace
