// SPDX-License-Identifier: Apache-2.0
#include "trace/stack_tally.h"

namespace looptrace {

uint32_t walk_status(const lt_capture_head& head) {
  if (head.unwind_status != LT_UNWIND_END || head.py_status == LT_PY_END) return head.unwind_status;
  switch (head.py_status) {
    case LT_PY_FULL:
      return kInterpreterFull;
    case LT_PY_MISMATCH:
      return kInterpreterMismatch;
    default:
      return kInterpreterFault;
  }
}

const char* unwind_status_name(uint32_t status) {
  switch (status) {
    case LT_UNWIND_END:
      return "end";
    case LT_UNWIND_FULL:
      return "too_deep";
    case LT_UNWIND_NO_MODULE:
      return "no_module";
    case LT_UNWIND_NO_ROW:
      return "no_row";
    case LT_UNWIND_READ_FAULT:
      return "read_fault";
    case LT_UNWIND_BAD_FRAME:
      return "bad_frame";
    case LT_UNWIND_OFF:
      return "no_tables";
    case kInterpreterFault:
      return "interpreter_fault";
    case kInterpreterFull:
      return "interpreter_too_deep";
    case kInterpreterMismatch:
      return "interpreter_mismatch";
    default:
      return "unsupported";
  }
}

StackCounts StackTally::since(const StackTally& before) const {
  StackCounts counts;
  for (uint32_t status = 0; status < kStatuses; ++status) {
    // A stack of the time before may have been walked anew since: then one is missing where it was.
    if (by_status_[status] <= before.by_status_[status]) continue;
    const uint64_t n = by_status_[status] - before.by_status_[status];
    counts.taken += n;
    if (status != LT_UNWIND_END) counts.incomplete[unwind_status_name(status)] = n;
  }
  return counts;
}

}  // namespace looptrace
