// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace looptrace::cpython {

/// A CPython version, as exactly as it could be found out.
struct Version {
  int major = 0, minor = 0;
  int micro = -1;   ///< -1 = not known
  int level = 0xf;  ///< release level: 0xa alpha, 0xb beta, 0xc candidate, 0xf final
  int serial = 0;

  /// From PY_VERSION_HEX, which the symbol Py_Version (3.11+) holds.
  static Version from_hex(uint64_t hex);

  /// From the text that Py_GetVersion() returns: "3.9.18 (main, ...".
  static std::optional<Version> from_text(std::string_view text);

  /// From the base name of a program or library: "python3.9", "libpython3.6m.so.1.0".
  static std::optional<Version> from_file_name(std::string_view name);

  /// Before the first release candidate, when layouts may still change.
  bool is_prerelease() const { return level < 0xc; }

  /// "3.11.2", "3.14.0rc1", "3.9"
  std::string text() const;
};

}  // namespace looptrace::cpython
