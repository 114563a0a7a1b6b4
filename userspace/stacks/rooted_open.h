// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/fd.h"

namespace looptrace {

/// Opens a regular file for reading as a process sees it: `root` is a directory such as /proc/PID/root, and
/// links in `path` are resolved inside it, never in our own root. Does not block on FIFOs and opens no
/// devices. `root` empty: our own root. With `follow_last` false a link as last component is refused.
UniqueFd open_in_root(const std::string& root, const std::string& path, bool follow_last = true);

}  // namespace looptrace
