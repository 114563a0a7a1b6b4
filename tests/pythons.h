// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace looptrace::test {

/// Where tests/provision keeps what is no package of this machine.
inline std::string cache_directory() {
  const char* given = std::getenv("LOOPTRACE_TEST_CACHE");
  return given && *given ? given : "/var/cache/looptrace-tests";
}

/// The interpreters of one version ("3.14", "3.14t") that are here: on PATH, in pyenv (PYENV_ROOT or
/// ~/.pyenv), from tests/provision (LOOPTRACE_TEST_CACHE), and in LOOPTRACE_PYTHONS
/// ("3.14=/path/to/python:3.15=...").
inline std::vector<std::string> pythons(const std::string& version) {
  namespace fs = std::filesystem;
  const auto environment = [](const char* name, const std::string& otherwise = "") {
    const char* value = std::getenv(name);
    return value && *value ? std::string(value) : otherwise;
  };
  std::vector<std::string> found;
  std::set<fs::path> seen;
  const auto add = [&](const fs::path& path, bool any_kind = false) {
    std::error_code error;
    const fs::path real = fs::canonical(path, error);
    if (error) return;
    char magic[4] = {};  // pyenv has scripts of that name on PATH
    std::ifstream(real, std::ios::binary).read(magic, 4);
    const bool is_elf = std::string(magic, 4) ==
                        "\x7f"
                        "ELF";
    if ((is_elf || any_kind) && seen.insert(real).second) found.push_back(path);
  };
  std::stringstream path(environment("PATH"));
  for (std::string directory; std::getline(path, directory, ':');) {
    add(fs::path(directory) / ("python" + version));
  }
  std::error_code error;
  const std::string pyenv = environment("PYENV_ROOT", environment("HOME") + "/.pyenv");
  for (const auto& entry : fs::directory_iterator(pyenv + "/versions", error)) {
    add(entry.path() / "bin" / ("python" + version));
  }
  add(cache_directory() + "/python-" + version + "/bin/python" + version, true);
  std::stringstream given(environment("LOOPTRACE_PYTHONS"));
  for (std::string item; std::getline(given, item, ':');) {
    if (item.starts_with(version + "=")) add(item.substr(version.size() + 1), true);
  }
  return found;
}

/// Why a test of that version skips.
inline std::string no_python(const std::string& version) {
  return "no CPython " + version + " here" +
         (version.ends_with("t") ? "; tests/provision freethreaded compiles one" : "");
}

}  // namespace looptrace::test
