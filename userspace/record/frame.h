// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace looptrace {

enum class FrameKind { native, inlined, kernel, python, javascript, jit };
const char* frame_kind_name(FrameKind kind);

/// Whose code a frame is. The culprit is application code while there is any on the stack.
enum class FrameOrigin {
  application,
  library,  ///< site-packages, node_modules, shared objects other than the main program
  runtime,  ///< the language's standard library, the interpreter itself, libc
};

/// One frame, resolved as far as it could be. Absent text is empty, an absent line is 0.
struct Frame {
  FrameKind kind = FrameKind::native;
  std::string function;  ///< demangled; empty if no name is known
  std::string file;      ///< source file
  int line = 0;
  std::string module;    ///< base name of the ELF file, or the Python module's name
  uint64_t offset = 0;   ///< native: address within the module (file's own virtual address)
  std::string build_id;  ///< native: hex, empty if the file has none
  FrameOrigin origin = FrameOrigin::application;
  bool guessed = false;        ///< found by a frame pointer or a scan where no unwind table covers the code
  bool at_definition = false;  ///< `line` is where the function begins: which one it was at is not known
};

}  // namespace looptrace
