// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

namespace looptrace {

/// A file of this directory, compiled in by embed.cmake.
struct EmbeddedSchema {
  std::string_view record;  ///< the file's name without ".json"
  const char* text;
};
std::span<const EmbeddedSchema> embedded_schemas();

}  // namespace looptrace
