// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtimes/cpython/offsets.h"
#include "runtimes/remote_memory.h"

namespace looptrace::cpython {

/// A str object's text as UTF-8, its first 1 KiB at most (lone surrogates, as in undecodable file names,
/// become U+FFFD). Nothing where `address` does not hold a compact str: subclasses, the wchar_t strings of
/// <= 3.11, garbage.
std::optional<std::string> read_string(const RemoteMemory& memory, const Offsets& offsets, uint64_t address);

}  // namespace looptrace::cpython
