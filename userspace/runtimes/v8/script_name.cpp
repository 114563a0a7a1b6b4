// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/script_name.h"

#include <array>
#include <cstddef>

namespace looptrace::v8 {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view url) {
  std::string path;
  for (size_t i = 0; i < url.size(); ++i) {
    const int high = url[i] == '%' && i + 2 < url.size() ? hex_digit(url[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(url[i + 2]) : -1;
    if (low >= 0 && (high || low)) {
      path += static_cast<char>(high << 4 | low);
      i += 2;
    } else {
      path += url[i];
    }
  }
  return path;
}

// "lodash" of ".../node_modules/lodash/lodash.js", "@scope/name" of ".../node_modules/@scope/name/x.js".
std::string_view package_of(std::string_view below) {
  size_t end = below.find('/');
  if (below.starts_with("@") && end != std::string_view::npos) end = below.find('/', end + 1);
  return below.substr(0, end);
}

std::string_view base_name(std::string_view path) {
  path = path.substr(path.rfind('/') + 1);
  for (const std::string_view suffix : {".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", ".jsx", ".tsx"}) {
    if (path.size() > suffix.size() && path.ends_with(suffix)) {
      return path.substr(0, path.size() - suffix.size());
    }
  }
  return path;
}

}  // namespace

ScriptName classify_script(std::string_view name) {
  ScriptName script;
  constexpr std::string_view kFileUrl = "file://", kPackages = "/node_modules/";
  script.file =
      name.starts_with(kFileUrl) ? percent_decoded(name.substr(kFileUrl.size())) : std::string(name);
  if (name.starts_with("node:")) {
    script.module = name;
    script.origin = FrameOrigin::runtime;
  } else if (const size_t at = script.file.rfind(kPackages); at != std::string::npos) {
    script.module = package_of(std::string_view(script.file).substr(at + kPackages.size()));
    script.origin = FrameOrigin::library;
  } else {
    script.module = base_name(script.file);
  }
  return script;
}

}  // namespace looptrace::v8
