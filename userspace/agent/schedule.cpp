// SPDX-License-Identifier: Apache-2.0
#include "agent/schedule.h"

#include <cmath>
#include <utility>

#include "base/sha256.h"

namespace looptrace {

uint64_t hash64(const std::string& a, const std::string& b, const std::string& c) {
  std::string text;
  for (const std::string* part : {&a, &b, &c}) {
    text += *part;
    text += '\0';
  }
  return std::stoull(sha256_hex(text).substr(0, 16), nullptr, 16);
}

Schedule::Schedule(std::string seed, std::string host, uint64_t window_ns, double probability)
    : seed_(std::move(seed)),
      host_(std::move(host)),
      window_ns_(window_ns),
      probability_(probability),
      phase_ns_(hash64(seed_, host_, "phase") % window_ns) {}

Schedule::Window Schedule::at(uint64_t realtime_ns) const {
  return window(realtime_ns < phase_ns_ ? 0 : (realtime_ns - phase_ns_) / window_ns_);
}

Schedule::Window Schedule::window(uint64_t number) const {
  Window w;
  w.number = number;
  w.start_ns = phase_ns_ + number * window_ns_;
  w.end_ns = w.start_ns + window_ns_;
  // 2^64 * probability, which for 1 would not fit.
  w.active = probability_ >= 1 ||
             static_cast<double>(hash64(seed_, host_, std::to_string(number))) < std::ldexp(probability_, 64);
  return w;
}

}  // namespace looptrace
