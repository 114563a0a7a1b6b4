// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace looptrace {

/// SHA-256 (FIPS 180-4) as 64 hex digits.
std::string sha256_hex(std::string_view bytes);

}  // namespace looptrace
