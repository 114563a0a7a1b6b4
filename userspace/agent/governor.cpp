// SPDX-License-Identifier: Apache-2.0
#include "agent/governor.h"

#include <algorithm>
#include <cmath>

namespace looptrace {
namespace {

constexpr double kSecond = 1e9;
// In quiet times: what can be saved up of the budget, and owed.
constexpr double kSaved = 2, kOverdrawn = 4;
// What it begins with: the first look at a host's programs costs more than all the rest of the day.
constexpr double kAdvance = 10;
constexpr double kUsedOver = 10 * kSecond, kRecentOver = 3 * kSecond;
constexpr double kRoom = 0.7;           // of the limit: more use than this is no quiet
constexpr uint64_t kLongestQuiet = 64;  // quiet times
constexpr double kFullRing = 0.8;

double towards(double mean, double value, double elapsed, double over) {
  return mean + (value - mean) * (1 - std::exp(-elapsed / over));
}

}  // namespace

const char* budget_level_name(BudgetLevel level) {
  switch (level) {
    case BudgetLevel::full:
      return "full";
    case BudgetLevel::no_source_lines:
      return "no_source_lines";
    case BudgetLevel::fewer_stacks:
      return "fewer_stacks";
    case BudgetLevel::no_stacks:
      return "no_stacks";
    case BudgetLevel::higher_threshold:
      return "higher_threshold";
    case BudgetLevel::hooks_off:
      return "hooks_off";
  }
  return "full";
}

Governor::Governor(BudgetLimits limits)
    : limits_(limits),
      credit_ns_(limits.cpu * kAdvance * static_cast<double>(limits.quiet_ns)),
      needed_quiet_ns_(limits.quiet_ns) {}

bool Governor::look(const BudgetUse& use) {
  if (!use.elapsed_ns) return false;
  const BudgetLevel before = level_;
  const double elapsed = static_cast<double>(use.elapsed_ns);
  const double share = static_cast<double>(use.cpu_ns) / elapsed;
  used_ = towards(used_, share, elapsed, kUsedOver);
  recent_ = towards(recent_, share, elapsed, kRecentOver);
  const double quiet = limits_.cpu * static_cast<double>(limits_.quiet_ns);
  const double earned = std::min(credit_ns_ + limits_.cpu * elapsed, std::max(kSaved * quiet, credit_ns_));
  credit_ns_ = std::max(earned - static_cast<double>(use.cpu_ns), -kOverdrawn * quiet);
  since_recovery_ns_ += use.elapsed_ns;

  const bool too_large = limits_.memory_bytes && use.resident_bytes > limits_.memory_bytes;
  const bool too_full = use.lost > 0 || use.ring_peak > kFullRing;
  if (credit_ns_ < 0 && std::min(recent_, share) > limits_.cpu) {
    shed(recent_ > 10 * limits_.cpu ? 2 : 1, "cpu");
  } else if (too_full && level_ < BudgetLevel::hooks_off) {
    shed(1, "ring");
  } else if (too_large) {
    shed(1, "memory");
  } else if (level_ != BudgetLevel::full) {
    const bool is_quiet = credit_ns_ > 0 && recent_ < kRoom * limits_.cpu;
    quiet_ns_ = is_quiet ? quiet_ns_ + use.elapsed_ns : 0;
    if (quiet_ns_ >= needed_quiet_ns_) recover();
  }
  return level_ != before;
}

void Governor::shed(int steps, const char* reason) {
  quiet_ns_ = 0;
  reason_ = reason;
  if (level_ == BudgetLevel::hooks_off) return;
  const int most = static_cast<int>(BudgetLevel::hooks_off);
  level_ = static_cast<BudgetLevel>(std::min(static_cast<int>(level_) + steps, most));
  ++sheds_;
  // Soon after a recovery: it came too early.
  if (since_recovery_ns_ < 2 * needed_quiet_ns_) {
    needed_quiet_ns_ = std::min(needed_quiet_ns_ * 2, kLongestQuiet * limits_.quiet_ns);
    since_recovery_ns_ = 2 * needed_quiet_ns_;  // once a relapse, not once a level
  }
}

void Governor::recover() {
  quiet_ns_ = 0;
  // A recovery that held for long: the trouble is over.
  if (since_recovery_ns_ > 8 * needed_quiet_ns_) needed_quiet_ns_ = limits_.quiet_ns;
  since_recovery_ns_ = 0;
  level_ = static_cast<BudgetLevel>(static_cast<int>(level_) - 1);
  if (level_ == BudgetLevel::full) reason_.clear();
}

}  // namespace looptrace
