// SPDX-License-Identifier: Apache-2.0
#include "agent/window_sample.h"

#include <algorithm>

namespace looptrace {
namespace {

// So many strata that each can have four records and more.
constexpr size_t kStrataShare = 4;
constexpr size_t kFingerprints = 1024;
constexpr size_t kListed = 32;

void count(StallTotals& totals, const Stall& stall) {
  ++totals.seen;
  totals.seen_ns += stall.duration_ns;
}

}  // namespace

WindowSample::Stratum& WindowSample::stratum_of(const Stall& stall) {
  std::pair<std::string, Cause> key{stall.service, stall.cause};
  if (const auto known = by_key_.find(key); known != by_key_.end()) return strata_[known->second];
  // The last one takes all that there is no room for: its stalls keep their own names.
  const size_t most = std::max<size_t>(limits_.records / kStrataShare, 1);
  if (strata_.size() >= most) return strata_.back();
  if (strata_.size() + 1 == most) key = {"", Cause::other};
  if (const auto known = by_key_.find(key); known != by_key_.end()) return strata_[known->second];
  by_key_[key] = strata_.size();
  Stratum& stratum = strata_.emplace_back();
  stratum.service = key.first;
  stratum.cause = key.second;
  return stratum;
}

void WindowSample::add(Stall stall) {
  Stratum& stratum = stratum_of(stall);
  count(stratum.totals, stall);
  StallTotals* of_kind = nullptr;
  if (!stall.fingerprint.empty()) {
    const auto known = fingerprints_.find(stall.fingerprint);
    if (known != fingerprints_.end()) {
      of_kind = &known->second;
    } else if (fingerprints_.size() < kFingerprints) {
      of_kind = &fingerprints_[stall.fingerprint];
    }
    if (of_kind) count(*of_kind, stall);
  }

  const double size = std::max(1.0, static_cast<double>(stall.duration_ns));
  const std::string fingerprint = stall.fingerprint;
  const auto place =
      std::upper_bound(stratum.entries.begin(), stratum.entries.end(), size,
                       [](double value, const Entry& entry) { return value < entry.size.adjusted; });
  stratum.entries.insert(place, Entry{std::make_unique<Stall>(std::move(stall)), {size, size}});
  ++held_;
  if (of_kind && ++of_kind->kept > std::max<size_t>(limits_.per_fingerprint, 1)) drop(stratum, &fingerprint);
  if (held_ <= limits_.records) return;
  const auto largest = std::max_element(
      strata_.begin(), strata_.end(),
      [](const Stratum& a, const Stratum& b) { return a.entries.size() < b.entries.size(); });
  if (largest->entries.size() > 1) drop(*largest, nullptr);
}

void WindowSample::drop(Stratum& stratum, const std::string* fingerprint) {
  std::vector<size_t> places;
  std::vector<VarOptSize*> candidates;
  for (size_t i = 0; i < stratum.entries.size(); ++i) {
    if (fingerprint && stratum.entries[i].stall->fingerprint != *fingerprint) continue;
    places.push_back(i);
    candidates.push_back(&stratum.entries[i].size);
  }
  if (candidates.size() < 2) return;  // the others are in another stratum
  const size_t victim = places[varopt_drop(candidates, coin())];
  const auto kind = fingerprints_.find(stratum.entries[victim].stall->fingerprint);
  if (kind != fingerprints_.end()) --kind->second.kept;
  stratum.entries.erase(stratum.entries.begin() + static_cast<std::ptrdiff_t>(victim));
  --held_;
  // The small ones of a part have grown past some of the others.
  if (fingerprint) {
    std::sort(stratum.entries.begin(), stratum.entries.end(),
              [](const Entry& a, const Entry& b) { return a.size.adjusted < b.size.adjusted; });
  }
}

WindowSample::Outcome WindowSample::take() {
  Outcome out;
  for (Stratum& stratum : strata_) {
    stratum.totals.kept = stratum.entries.size();
    for (Entry& entry : stratum.entries) {
      entry.stall->sample_weight = entry.size.weight();
      out.stalls.push_back(std::move(*entry.stall));
    }
    out.totals.seen += stratum.totals.seen;
    out.totals.seen_ns += stratum.totals.seen_ns;
    out.totals.kept += stratum.totals.kept;
    if (stratum.totals.seen) out.strata.push_back({stratum.service, stratum.cause, stratum.totals});
  }
  for (const auto& [fingerprint, totals] : fingerprints_) {
    if (totals.seen > totals.kept) out.capped.push_back({fingerprint, totals});
  }
  out.sampled_out = out.totals.seen - out.totals.kept;
  std::sort(out.stalls.begin(), out.stalls.end(),
            [](const Stall& a, const Stall& b) { return a.time_ns < b.time_ns; });
  std::sort(out.strata.begin(), out.strata.end(), [](const StratumTotals& a, const StratumTotals& b) {
    return a.stalls.seen_ns > b.stalls.seen_ns;
  });
  std::sort(out.capped.begin(), out.capped.end(), [](const CappedFingerprint& a, const CappedFingerprint& b) {
    return a.stalls.seen > b.stalls.seen;
  });
  if (out.strata.size() > kListed) {
    out.strata_dropped = out.strata.size() - kListed;
    out.strata.resize(kListed);
  }
  if (out.capped.size() > kListed) out.capped.resize(kListed);
  *this = WindowSample(limits_, 0);
  return out;
}

}  // namespace looptrace
