// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace looptrace {

/// SHA-256 (FIPS 180-4) as 64 hex digits.
std::string sha256_hex(std::string_view bytes);

/// HMAC-SHA-256 (RFC 2104) as 64 hex digits: who has not the key cannot try texts until one fits.
std::string hmac_sha256_hex(std::string_view key, std::string_view text);

/// A name as 16 hex digits of that; nothing stays nothing.
std::string keyed_hash(std::string_view key, std::string_view text);

}  // namespace looptrace
