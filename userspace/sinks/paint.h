// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace looptrace {

enum class Ink { plain, bold, dim, red, yellow, green, cyan };

/// Wraps text in a terminal's colour codes, or leaves it as it is.
class Paint {
 public:
  explicit Paint(bool on) : on_(on) {}

  std::string operator()(Ink ink, std::string_view text) const {
    if (!on_ || ink == Ink::plain) return std::string(text);
    std::string out = code(ink);
    out += text;
    out += "\033[0m";
    return out;
  }

 private:
  static const char* code(Ink ink) {
    switch (ink) {
      case Ink::plain:
        break;
      case Ink::bold:
        return "\033[1m";
      case Ink::dim:
        return "\033[2m";
      case Ink::red:
        return "\033[1;31m";
      case Ink::yellow:
        return "\033[33m";
      case Ink::green:
        return "\033[32m";
      case Ink::cyan:
        return "\033[36m";
    }
    return "";
  }

  bool on_;
};

}  // namespace looptrace
