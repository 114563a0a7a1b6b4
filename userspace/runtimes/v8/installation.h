// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "runtimes/v8/layout.h"
#include "stacks/module.h"

namespace looptrace::v8 {

/// The Node.js inside one process.
struct Installation {
  std::string version;     ///< "20.20.2"
  std::string v8_version;  ///< "11.3.244.8-node.38"
  Layout layout;
  std::string module;  ///< base name of the file that holds V8: "node", "libnode.so.115"
  std::shared_ptr<ElfObject> object;
  uint64_t start = 0, end = 0;  ///< of its code, as mapped
};

/// Looks for V8's constants for debuggers in the main program and in libnode. Nothing if there is no V8; an
/// Error that tells the version where there is one that we cannot read.
Result<std::optional<Installation>> find_installation(pid_t pid, const ProcessModules& modules);

}  // namespace looptrace::v8
