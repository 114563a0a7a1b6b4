// SPDX-License-Identifier: Apache-2.0
#include "trace/target_set.h"

#include <algorithm>
#include <utility>

#include "targets/scan.h"

namespace looptrace {

namespace {

// Looking at every process takes milliseconds: not more often than this.
constexpr uint64_t kRescanNs = 1'000'000'000;

}  // namespace

Result<void> TargetSet::take() {
  if (every_process_) return {};
  const auto before = std::exchange(matches_, {});
  for (const Target& target : scan(procfs_, matcher_)) {
    const auto tgid = static_cast<uint32_t>(target.facts.pid);
    matches_[tgid] = target.match;
    if (auto r = engine_.add_target(tgid); !r) return r;
  }
  for (const auto& [tgid, match] : before) {
    if (!matches_.contains(tgid)) engine_.remove_target(tgid);
  }
  return {};
}

bool TargetSet::consider(uint32_t tgid) {
  const auto facts = read_process(procfs_, static_cast<pid_t>(tgid), matcher_.parts());
  const Match match = facts ? matcher_.match(*facts) : Match{};
  if (!match) {
    matches_.erase(tgid);
    engine_.remove_target(tgid);
    return false;
  }
  matches_[tgid] = match;
  if (auto r = engine_.add_target(tgid); !r) {
    on_full_(r.error().message());
    return false;
  }
  return true;
}

bool TargetSet::changed(uint32_t tgid) {
  const bool known = matches_.contains(tgid);
  if (!consider(tgid)) return false;
  if (!known) rescan_ = true;
  return true;
}

bool TargetSet::selects(uint32_t tgid, uint32_t tid) {
  if (every_process_) return true;
  const auto selected = [&] {
    const auto it = matches_.find(tgid);
    if (it == matches_.end()) return false;
    const auto& threads = it->second.threads;
    return it->second.whole ||
           std::find(threads.begin(), threads.end(), static_cast<pid_t>(tid)) != threads.end();
  };
  if (selected()) return true;
  consider(tgid);
  return selected();
}

bool TargetSet::rescan(uint64_t now) {
  if (!rescan_ || every_process_ || now - last_rescan_ns_ < kRescanNs) return false;
  rescan_ = false;
  last_rescan_ns_ = now;
  bool found = false;
  for (const Target& target : scan(procfs_, matcher_)) {
    const auto tgid = static_cast<uint32_t>(target.facts.pid);
    found |= !matches_.contains(tgid) && consider(tgid);
  }
  return found;
}

}  // namespace looptrace
