// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace looptrace {

/// Reads a whole file (procfs included, where st_size is 0). Fails past `limit` bytes.
Result<std::string> read_file(const std::string& path, size_t limit = 16u << 20);

/// The same of a regular file only, and not through a symbolic link at its end: whoever may write there
/// cannot have us wait for a pipe or read without end.
Result<std::string> read_regular_file(const std::string& path, size_t limit);

/// The target of a symbolic link, without the kernel's " (deleted)" removed.
Result<std::string> read_link(const std::string& path);

/// By the effective user and capabilities. access(2) asks with the real user's: it says no to an agent that
/// may read.
bool exists(const std::string& path);
bool readable(const std::string& path);

/// Parts of `text` between `sep`; empty parts are kept.
std::vector<std::string_view> split(std::string_view text, char sep);

/// `text` without leading and trailing blanks and newlines.
std::string_view trim(std::string_view text);

/// Valid UTF-8: every byte that is not part of a valid sequence becomes U+FFFD.
std::string to_utf8(std::string_view bytes);

/// The beginning of a UTF-8 text, without the half of a character that it may end with.
std::string_view whole_characters(std::string_view beginning);

/// What was read of a longer text, its whole characters ended by an ellipsis.
std::string cut_short(std::string_view beginning);

/// `text`, cut short if it is longer than `limit` bytes.
std::string at_most(std::string_view text, size_t limit);

}  // namespace looptrace
