// SPDX-License-Identifier: Apache-2.0
#include "sinks/terminal_text.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/files.h"

namespace looptrace {
namespace {

constexpr std::string_view kDots = "...";

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// The first character of valid, non-empty UTF-8 and its length.
struct Character {
  char32_t code;
  size_t length;
};

Character first_character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  char32_t code = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3fu);
  return {code, length};
}

bool is_hostile(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) ||  // C0, DEL, C1
         (c >= 0x200b && c <= 0x200f) ||         // zero width, direction marks
         (c >= 0x2028 && c <= 0x202e) ||         // line separators, direction overrides
         (c >= 0x2060 && c <= 0x206f) ||         // invisible operators, direction isolates
         c == 0x061c || c == 0xfeff || c == 0xfffd;
}

// Bytes of the first `n` characters.
size_t prefix_bytes(std::string_view text, size_t n) {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if (!is_continuation(text[at]) && n-- == 0) break;
  }
  return at;
}

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (!value || !*value) continue;
    std::string lower(value);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return lower.find("utf-8") != lower.npos || lower.find("utf8") != lower.npos;
  }
  return false;
}

}  // namespace

std::string printable(std::string_view bytes) {
  const std::string text = to_utf8(bytes);
  std::string out;
  out.reserve(text.size());
  for (std::string_view rest = text; !rest.empty();) {
    const Character c = first_character(rest);
    if (is_hostile(c.code)) {
      out += '?';
    } else {
      out += rest.substr(0, c.length);
    }
    rest.remove_prefix(c.length);
  }
  return out;
}

size_t columns(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

std::string shorten_end(std::string_view text, size_t width) {
  if (columns(text) <= width) return std::string(text);
  if (width <= kDots.size()) return std::string(text.substr(0, prefix_bytes(text, width)));
  std::string out(text.substr(0, prefix_bytes(text, width - kDots.size())));
  out += kDots;
  return out;
}

std::string shorten_middle(std::string_view text, size_t width) {
  const size_t all = columns(text);
  if (all <= width) return std::string(text);
  if (width <= kDots.size() + 2) return shorten_end(text, width);
  const size_t left = (width - kDots.size()) / 2;
  const size_t right = width - kDots.size() - left;
  std::string out(text.substr(0, prefix_bytes(text, left)));
  out += kDots;
  out += text.substr(prefix_bytes(text, all - right));
  return out;
}

std::string pad(std::string_view text, size_t width) {
  std::string out(text);
  const size_t used = columns(text);
  if (used < width) out.append(width - used, ' ');
  return out;
}

Terminal describe_terminal(int fd) {
  Terminal terminal;
  terminal.unicode = locale_is_utf8();
  if (::isatty(fd) != 1) return terminal;
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  // no-color.org: "when present and not an empty string".
  terminal.colours = !(no_color && *no_color) && !(term && std::string_view(term) == "dumb");
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    terminal.width = std::max<size_t>(size.ws_col, 40);
  return terminal;
}

}  // namespace looptrace
