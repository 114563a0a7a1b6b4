// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace looptrace {

/// Which windows of time a host traces in. Pure: the seed, the host's name and the time decide, so hosts need
/// no coordination, and what a host did can be worked out later from its records.
///
/// Time is cut into windows of equal length. Where they begin differs from host to host (a hash of the seed
/// and the host), so that a fleet does not attach all at once. A window is active if hash(seed, host, number)
/// is below the probability. Over a fleet, at each moment the share of active hosts is that probability.
class Schedule {
 public:
  struct Window {
    uint64_t number = 0;
    uint64_t start_ns = 0, end_ns = 0;  ///< CLOCK_REALTIME, [start, end)
    bool active = false;
  };

  Schedule(std::string seed, std::string host, uint64_t window_ns, double probability);

  /// The window that a time falls into.
  Window at(uint64_t realtime_ns) const;
  /// The one with this number.
  Window window(uint64_t number) const;

  double probability() const { return probability_; }
  uint64_t window_ns() const { return window_ns_; }
  uint64_t phase_ns() const { return phase_ns_; }

 private:
  std::string seed_, host_;
  uint64_t window_ns_;
  double probability_;
  uint64_t phase_ns_;  // windows begin at phase, phase + window, ...
};

/// The first 64 bits of SHA-256 over the parts, each ended by a NUL.
uint64_t hash64(const std::string& a, const std::string& b, const std::string& c);

}  // namespace looptrace
