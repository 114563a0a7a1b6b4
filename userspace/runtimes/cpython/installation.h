// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtimes/cpython/asyncio_offsets.h"
#include "runtimes/cpython/native_code.h"
#include "runtimes/cpython/offsets.h"
#include "runtimes/cpython/version.h"
#include "stacks/module.h"

namespace looptrace::cpython {

/// The CPython inside one process: which, how its structures are laid out, where its symbols are.
/// Addresses are the process's unless it says otherwise.
struct Installation {
  Version version;
  Offsets offsets;
  uint64_t runtime = 0;  ///< _PyRuntime
  uint64_t runtime_size = 0;
  uint64_t code_type = 0;  ///< PyCode_Type; 0 if its symbol is missing
  uint64_t cell_type = 0, function_type = 0,
           method_type = 0;             ///< PyCell_Type, PyCFunction_Type, PyMethod_Type
  uint64_t str_type = 0, int_type = 0;  ///< PyUnicode_Type, PyLong_Type
  uint64_t init_cleanup = 0;            ///< _Py_InitCleanup (3.13+): 0 if it is not known
  std::vector<AddressRange> eval;
  std::string module;                   ///< base name of the file that holds the interpreter
  std::vector<AddressRange> collector;  ///< of the garbage collector, the file's own addresses
};

/// Looks for `_PyRuntime` in every mapped ELF file: it is exported by static interpreters, libpython and
/// programs that embed one. Nothing if there is no CPython; an Error that tells the version where there is
/// one that we cannot read (before 3.8, after 3.15, pre-releases).
Result<std::optional<Installation>> find_installation(pid_t pid, const ProcessModules& modules);

/// What asyncio tells of itself (3.14+), if it is loaded: an extension module often is one of its own file.
std::optional<AsyncioOffsets> find_asyncio(const ProcessModules& modules);

}  // namespace looptrace::cpython
