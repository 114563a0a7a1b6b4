// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "looptrace.h"
#include "targets/procfs.h"

namespace looptrace {

/// What a thread that polls one descriptor waits for.
struct ClientPoll {
  bool is_client = false;  ///< a connected socket: it waits for an answer, as a synchronous client does
  std::string what;        ///< "tcp 127.0.0.1:5432"
};

/// Looks at the descriptor of the poll() or select() in which the thread sleeps now. Nothing if its poll is
/// of another kind or has more descriptors, or if it does not sleep in it long enough to be looked at. `live`
/// is the slot that the kernel writes.
std::optional<ClientPoll> look_at_poll(const ProcFs& procfs, const lt_slot& live);

}  // namespace looptrace
