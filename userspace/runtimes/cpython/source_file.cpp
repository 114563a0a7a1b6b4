// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/source_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

namespace looptrace::cpython {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// What follows the last directory of one of these names.
std::optional<std::string_view> below_packages(std::string_view path) {
  for (const std::string_view directory : {"/site-packages/", "/dist-packages/"}) {
    const size_t at = path.rfind(directory);
    if (at != std::string_view::npos) return path.substr(at + directory.size());
  }
  return std::nullopt;
}

// What follows ".../lib/python3.N/" (lib64 and free-threaded "3.Nt" too) or ".../python3N.zip/".
std::optional<std::string_view> below_stdlib(std::string_view path) {
  for (size_t from = 0; from < path.size();) {
    const size_t at = path.find("/python3", from);
    if (at == std::string_view::npos) return std::nullopt;
    size_t end = at + 8;
    const bool dotted = end < path.size() && path[end] == '.';
    if (dotted) ++end;
    const size_t digits = end;
    while (end < path.size() && is_digit(path[end])) ++end;
    const bool numbered = end > digits;
    if (dotted && end < path.size() && path[end] == 't') ++end;
    const std::string_view parent = path.substr(0, at);
    const bool in_lib = parent.ends_with("/lib") || parent.ends_with("/lib64");
    if (dotted && numbered && in_lib && path.substr(end).starts_with("/")) return path.substr(end + 1);
    if (!dotted && numbered && path.substr(end).starts_with(".zip/")) return path.substr(end + 5);
    from = end;
  }
  return std::nullopt;
}

std::string_view without_suffix(std::string_view path) {
  for (const std::string_view suffix : {".py", ".pyc", ".pyx", ".pyw"}) {
    if (path.ends_with(suffix) && path.size() > suffix.size()) {
      return path.substr(0, path.size() - suffix.size());
    }
  }
  return path;
}

std::string dotted(std::string_view relative) {
  std::string name(without_suffix(relative));
  std::replace(name.begin(), name.end(), '/', '.');
  const std::string_view package = ".__init__";
  if (std::string_view(name).ends_with(package)) name.resize(name.size() - package.size());
  return name;
}

// A package's own files say nothing without the package's name.
std::string base_name(std::string_view path) {
  size_t slash = path.rfind('/');
  const std::string_view base = slash == std::string_view::npos ? path : path.substr(slash + 1);
  const bool is_package = base == "__init__.py" || base == "__main__.py";
  if (is_package && slash != std::string_view::npos && slash > 0) {
    slash = path.rfind('/', slash - 1);
    if (slash == std::string_view::npos) return dotted(path);
    return dotted(path.substr(slash + 1));
  }
  return dotted(base);
}

}  // namespace

SourceFile classify_source(std::string_view filename) {
  SourceFile source;
  source.file = filename;
  constexpr std::string_view kFrozen = "<frozen ";
  if (filename.starts_with(kFrozen) && filename.ends_with(">")) {
    source.module = filename.substr(kFrozen.size(), filename.size() - kFrozen.size() - 1);
    source.origin = FrameOrigin::runtime;
  } else if (filename.starts_with("<")) {
    source.module = filename;
  } else if (const auto library = below_packages(filename)) {
    source.module = dotted(*library);
    source.origin = FrameOrigin::library;
  } else if (const auto stdlib = below_stdlib(filename)) {
    source.module = dotted(*stdlib);
    source.origin = FrameOrigin::runtime;
  } else {
    source.module = base_name(filename);
  }
  return source;
}

}  // namespace looptrace::cpython
