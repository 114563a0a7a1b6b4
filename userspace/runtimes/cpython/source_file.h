// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "record/frame.h"

namespace looptrace::cpython {

/// What a code object's file name tells about the code.
struct SourceFile {
  std::string file;    ///< co_filename as it is
  std::string module;  ///< "tornado.web", "asyncio.events", "app"
  FrameOrigin origin = FrameOrigin::application;
};

/// site-packages and dist-packages hold libraries; lib/python3.N, python3N.zip and frozen modules the
/// standard library; all else is the application. A module below one of these has its dotted name; an
/// application's file only its base name, since where its packages begin cannot be told from the path.
SourceFile classify_source(std::string_view filename);

}  // namespace looptrace::cpython
