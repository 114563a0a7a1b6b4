// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "runtimes/cpython/offsets.h"

namespace looptrace::cpython {

/// Bytes to read at _PyRuntime; longer than any version's _Py_DebugOffsets part that we use.
constexpr size_t kDebugOffsetsBytes = 1024;

/// The interpreter's own description of its structures: `_Py_DebugOffsets`, the first member of _PyRuntime
/// since 3.13: the cookie "xdebugpy", PY_VERSION_HEX, a free-threaded flag, then offsets as 8-byte words.
/// The words' order changes with each minor version, so each has its own decoder; a version without one,
/// a pre-release, or words that contradict each other are refused.
Result<Offsets> decode_debug_offsets(std::span<const uint8_t> bytes);

}  // namespace looptrace::cpython
