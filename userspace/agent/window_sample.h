// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "agent/varopt.h"
#include "record/window.h"

namespace looptrace {

struct SampleLimits {
  size_t records = 200;         ///< stalls kept of a window
  size_t per_fingerprint = 20;  ///< ... and of one fingerprint in it
};

/// The stalls of one window in bounded memory. Pure.
///
/// What is sampled apart (a stratum) is a service's stalls of one cause, so that a service or a cause with
/// few stalls is not drowned by one with many. When all the room is taken, the stratum with the most records
/// gives up one; before that, a fingerprint with more records than its cap does. Which one goes is VarOpt's
/// choice, by duration: the longer one is, the surer it is kept, and the sum of weight x duration over a
/// stratum is its exact stall time, however few records are left of it.
///
/// Counts by stratum are exact, and so are those by fingerprint of the first kFingerprints that come.
class WindowSample {
 public:
  WindowSample(SampleLimits limits, uint64_t coin_seed) : limits_(limits), coin_(coin_seed) {}

  void add(Stall stall);

  struct Outcome {
    std::vector<Stall> stalls;  ///< in order of time; sample_weight is within the window
    StallTotals totals;
    uint64_t sampled_out = 0;  ///< stood for by the weights of others
    std::vector<StratumTotals> strata;
    uint64_t strata_dropped = 0;
    std::vector<CappedFingerprint> capped;
  };
  /// All of it, once.
  Outcome take();

  size_t held() const { return held_; }

 private:
  struct Entry {
    std::unique_ptr<Stall> stall;
    VarOptSize size;
  };
  struct Stratum {
    std::string service;
    Cause cause = Cause::other;
    StallTotals totals;
    std::vector<Entry> entries;  // ascending by adjusted size
  };

  Stratum& stratum_of(const Stall& stall);
  /// One of the stratum's entries goes: of this fingerprint, if one is given.
  void drop(Stratum& stratum, const std::string* fingerprint);
  double coin() { return std::uniform_real_distribution<double>(0, 1)(coin_); }

  SampleLimits limits_;
  std::mt19937_64 coin_;
  std::vector<Stratum> strata_;
  std::map<std::pair<std::string, Cause>, size_t> by_key_;
  std::unordered_map<std::string, StallTotals> fingerprints_;
  size_t held_ = 0;
};

}  // namespace looptrace
