// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "record/frame.h"

namespace looptrace::v8 {

/// What a script's name tells about its code.
struct ScriptName {
  std::string file;    ///< a path where the name is one or a file: URL; else the name as it is
  std::string module;  ///< "node:fs", the package's name below node_modules, else the file's base name
  FrameOrigin origin = FrameOrigin::application;
};

/// node:* is the runtime's own code, what lies below node_modules a library's; all else is the application.
ScriptName classify_script(std::string_view name);

}  // namespace looptrace::v8
