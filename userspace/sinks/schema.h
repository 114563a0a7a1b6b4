// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace looptrace {

/// The JSON Schema (2020-12) of "stall", "start", ...; null if there is no such record.
const char* schema_text(std::string_view record);

/// The records that have a schema, by the alphabet.
std::vector<std::string_view> schema_names();

/// What `looptrace schema [RECORD]` prints: one schema, or for "" an object of all by record name.
/// Fault::usage if there is no such record.
Result<std::string> schema_output(std::string_view record);

}  // namespace looptrace
