// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "looptrace.h"
#include "targets/procfs.h"

namespace looptrace {

/// What a thread that polls one descriptor waits for.
struct LonePoll {
  /// Why that is no event loop's: a synchronous client waits for its answer on a connection, a shell or an
  /// editor on its terminal for what is typed. Empty: it may be one.
  std::string no_loop;
};

/// Looks at the descriptor of the poll() or select() in which the thread sleeps now. Nothing if its poll is
/// of another kind or has more descriptors, or if it does not sleep in it long enough to be looked at. `live`
/// is the slot that the kernel writes.
std::optional<LonePoll> look_at_lone_poll(const ProcFs& procfs, const lt_slot& live);

}  // namespace looptrace
