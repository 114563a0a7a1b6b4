// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace looptrace {

/// "poll", of this machine's architecture; "syscall_999" if the number is not known; "" below 0 (no call).
std::string syscall_name(int nr);

}  // namespace looptrace
