// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "runtimes/cpython/offsets.h"
#include "runtimes/remote_memory.h"

namespace looptrace::cpython {

/// A str object's text as UTF-8, cut short after 1 KiB (lone surrogates, as in undecodable file names,
/// become U+FFFD). Nothing where `address` does not hold a compact str: subclasses, the wchar_t strings of
/// <= 3.11, garbage.
std::optional<std::string> read_string(const RemoteMemory& memory, const Offsets& offsets, uint64_t address);

/// The same of an object whose first bytes are at hand: cut short where they end.
std::optional<std::string> decode_string(const Offsets& offsets, std::span<const uint8_t> object);

}  // namespace looptrace::cpython
