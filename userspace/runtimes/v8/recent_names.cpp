// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/recent_names.h"

namespace looptrace::v8 {
namespace {

constexpr size_t kMaxCalls = 1024;

}  // namespace

void RecentNames::keep(const lt_v8_frame& frame, uint64_t address, std::span<const NamedFrame> names,
                       Clock::time_point now) {
  if (calls_.size() >= kMaxCalls) calls_.clear();
  Named& named = calls_[call(frame, address)];
  named.at = now;
  named.frames.clear();
  for (const NamedFrame& name : names) named.frames.push_back(name.frame);
}

std::vector<SharedFrame> RecentNames::find(const lt_v8_frame& frame, uint64_t address,
                                           Clock::time_point now) const {
  const auto known = calls_.find(call(frame, address));
  if (known == calls_.end() || now - known->second.at > kMaxAge) return {};
  return known->second.frames;
}

}  // namespace looptrace::v8
