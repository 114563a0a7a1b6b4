// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "record/frame.h"

namespace looptrace {

/// Whose code a mapped file is, from its path. `program`: it is an executable, not a shared object.
/// Interpreters, the C and C++ runtimes and the vDSO are runtime; shared objects of the system or of a
/// package manager are library; everything else is the application's.
FrameOrigin module_origin(std::string_view path, bool program);

/// Whose code a source file is where its module's origin is `of_module`: code of the C++ or Rust library
/// and of packages that was compiled or inlined into an application is not the application's own.
FrameOrigin source_origin(std::string_view file, FrameOrigin of_module);

/// Whose code a Java class is, by its full name: the JDK's, a framework's that runs event loops or handlers,
/// or the application's.
FrameOrigin java_origin(std::string_view type);

}  // namespace looptrace
