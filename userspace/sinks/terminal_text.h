// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace looptrace {

/// Text of a traced process for a terminal: what could move the cursor, change the title or reorder the
/// line (control characters, line breaks, Unicode's direction marks) becomes "?", and so does bad UTF-8.
std::string printable(std::string_view text);

/// Characters of printable text, each taken as one column.
size_t columns(std::string_view text);

/// `text` in at most `width` columns, its end or its middle replaced by "..." or, if narrower, cut.
std::string shorten_end(std::string_view text, size_t width);
std::string shorten_middle(std::string_view text, size_t width);

/// `text` filled up with blanks to `width` columns.
std::string pad(std::string_view text, size_t width);

/// What a descriptor's other end shows. Colours unless NO_COLOR is set or it is no terminal.
struct Terminal {
  bool colours = false;
  bool unicode = true;  ///< the locale's characters are UTF-8
  size_t width = 100;
};
Terminal describe_terminal(int fd);

}  // namespace looptrace
