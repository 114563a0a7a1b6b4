// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

namespace looptrace {

/// What a loop's own scheduler was running: an asyncio Task, and for Tornado the request's handler. Absent
/// text is empty, an absent line is 0.
struct TaskInfo {
  std::string name;       ///< the Task's: "Task-7", or as the program named it
  std::string coroutine;  ///< the Task's outermost coroutine ...
  std::string file;
  int line = 0;         ///< ... and the line that it is at
  std::string handler;  ///< "OrderHandler.get"

  struct Place {
    std::string function, file;
    int line = 0;
  };
  std::optional<Place> created_at;  ///< asyncio's debug mode alone keeps it
};

}  // namespace looptrace
