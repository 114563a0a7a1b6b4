// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "pythons.h"

namespace looptrace::test {

/// The JVMs that are here: on PATH, from tests/provision (LOOPTRACE_TEST_CACHE), and in LOOPTRACE_JAVAS
/// ("/path/to/java:...").
inline std::vector<std::string> javas() {
  namespace fs = std::filesystem;
  std::vector<std::string> found;
  if (std::system("java -version >/dev/null 2>&1") == 0) found.emplace_back("java");
  for (const char* major : {"21", "25"}) {
    const std::string java = cache_directory() + "/java-" + major + "/bin/java";
    if (fs::exists(java)) found.push_back(java);
  }
  const char* given = std::getenv("LOOPTRACE_JAVAS");
  std::stringstream more(given ? given : "");
  for (std::string java; std::getline(more, java, ':');) {
    if (!java.empty()) found.push_back(java);
  }
  return found;
}

}  // namespace looptrace::test
