// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace looptrace {

/// "50ms", "1.5s", "200us", "2min" (ns us ms s min h) to nanoseconds, exactly. A bare number is in
/// `bare_unit` ("10" = 10 ms by default). Fault::usage with what is wrong and an example of what is right.
Result<uint64_t> parse_duration(std::string_view text, std::string_view bare_unit = "ms");

/// "8000", "64k", "1M", "16MiB" to bytes; k, M and G are powers of 1024.
Result<uint64_t> parse_size(std::string_view text);

/// A whole number from `least` to `most`.
Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most);

}  // namespace looptrace
