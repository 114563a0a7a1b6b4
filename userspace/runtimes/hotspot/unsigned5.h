// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace looptrace::hotspot {

/// HotSpot's UNSIGNED5: numbers of up to five bytes of base 192 with 64 carried on. From JDK 20 on no byte of
/// a number is 0.
struct Unsigned5 {
  uint32_t lowest = 0;  ///< what a byte of value 0 is written as

  static Unsigned5 of(int major) { return {major >= 20 ? 1u : 0u}; }

  /// Takes a number from the front of `rest`; nothing if it does not end there.
  std::optional<uint32_t> take(std::span<const uint8_t>& rest) const {
    constexpr uint32_t kCarries = 192;
    uint32_t sum = 0;
    for (unsigned i = 0; i < 5; ++i) {
      if (rest.empty() || rest.front() < lowest) return std::nullopt;
      const uint32_t byte = rest.front();
      rest = rest.subspan(1);
      sum += (byte - lowest) << (6 * i);
      if (byte < kCarries) break;
    }
    return sum;
  }
};

}  // namespace looptrace::hotspot
