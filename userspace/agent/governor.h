// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace looptrace {

/// What the agent leaves out to stay within its budget, from nothing to everything. Each includes those
/// before.
enum class BudgetLevel {
  full,
  no_source_lines,  ///< no DWARF lines and inlined functions
  fewer_stacks,     ///< a tenth of the stacks
  no_stacks,
  higher_threshold,  ///< four times as long
  hooks_off,         ///< nothing is attached
};
const char* budget_level_name(BudgetLevel level);

struct BudgetLimits {
  double cpu = 0.005;                  ///< of one core
  uint64_t memory_bytes = 192u << 20;  ///< resident; 0 = no limit
  uint64_t quiet_ns = 30'000'000'000;  ///< how long all must be well before a level is given back
};

/// What was used since the last look.
struct BudgetUse {
  uint64_t elapsed_ns = 0;
  uint64_t cpu_ns = 0;   ///< of the process and its BPF programs
  double ring_peak = 0;  ///< 0 to 1
  uint64_t lost = 0;     ///< events that found a ring or a queue full
  uint64_t resident_bytes = 0;
};

/// Decides on the level. Pure: fed with what was used, asked what to do.
///
/// The budget is an account: it earns `cpu` nanoseconds a nanosecond, up to two quiet times' worth (a quiet
/// time is half a minute), and pays what was used. It begins with an advance of ten, since the first look at
/// a host's programs costs much, once. Where it is overdrawn and the last seconds cost more than they may,
/// one level is shed a look, two where they cost ten times too much. It recovers one level at a time, after a
/// quiet time in which the account is in credit and use is below 0.7 of the limit; a level that had to be
/// shed again soon doubles the quiet time, up to half an hour: that is the hysteresis.
class Governor {
 public:
  explicit Governor(BudgetLimits limits);

  /// Call about once a second. Returns true if the level changed.
  bool look(const BudgetUse& use);

  BudgetLevel level() const { return level_; }
  /// "cpu", "ring", "memory": why it is not full.
  const std::string& reason() const { return reason_; }
  double used() const { return used_; }  ///< of one core, over the last ten seconds or so
  const BudgetLimits& limits() const { return limits_; }
  void set_limits(BudgetLimits limits) { limits_ = limits; }
  uint64_t sheds() const { return sheds_; }

 private:
  void shed(int steps, const char* reason);
  void recover();

  BudgetLimits limits_;
  BudgetLevel level_ = BudgetLevel::full;
  std::string reason_;
  double credit_ns_;
  double used_ = 0, recent_ = 0;  // means over ten seconds and over three
  uint64_t quiet_ns_ = 0, needed_quiet_ns_;
  uint64_t since_recovery_ns_ = UINT64_MAX / 2;  // there was none
  uint64_t sheds_ = 0;
};

}  // namespace looptrace
