// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

namespace looptrace::cpython {

/// asyncio's own description of its Tasks (3.14+): the section .AsyncioDebug, in the interpreter's file or in
/// that of the extension module _asyncio. Since then each thread's state names the Task that it runs, whoever
/// steps it.
struct AsyncioOffsets {
  int coro = 0, name = 0;  ///< in a Task
  int running_task = 0;    ///< in a thread state
};

/// Nothing if the words are not those of 3.14 and 3.15: too few, too many, or at odds with each other.
std::optional<AsyncioOffsets> decode_asyncio_offsets(std::string_view section);

}  // namespace looptrace::cpython
