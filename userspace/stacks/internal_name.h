// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace looptrace {

/// glibc calls its own functions by aliases, "__GI___libc_read" for "__libc_read": an artefact of its
/// linking.
inline std::string_view without_internal_prefix(std::string_view name) {
  constexpr std::string_view kPrefix = "__GI_";
  return name.size() > kPrefix.size() && name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

}  // namespace looptrace
