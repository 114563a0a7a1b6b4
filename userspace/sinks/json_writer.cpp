// SPDX-License-Identifier: Apache-2.0
#include "sinks/json_writer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/files.h"

namespace looptrace {
namespace {

constexpr std::string_view kEllipsis = "\xe2\x80\xa6";

bool is_plain(unsigned char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

// Length of the character that starts valid UTF-8 text.
size_t character_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}

std::string unicode_escape(unsigned char code) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text = "\\u00";
  text += kHex[code >> 4];
  text += kHex[code & 0xf];
  return text;
}

// One character of valid UTF-8, as JSON spells it.
std::string escape(std::string_view character) {
  const auto c = static_cast<unsigned char>(character[0]);
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (c < 0x20 || c == 0x7f) return unicode_escape(c);
  const auto second = static_cast<unsigned char>(character.size() > 1 ? character[1] : 0);
  if (c == 0xc2 && second < 0xa0) return unicode_escape(second);
  return std::string(character);
}

// Appends `text` (valid UTF-8) escaped, at most `limit` bytes of it; returns the bytes that all of it takes.
size_t append_escaped(std::string& out, std::string_view text, size_t limit) {
  const size_t start = out.size();
  const size_t room = limit < kEllipsis.size() ? 0 : limit - kEllipsis.size();
  size_t cut_at = start;  // the last end of a character that leaves room for the ellipsis
  for (size_t i = 0; i < text.size();) {
    const size_t n = character_length(static_cast<unsigned char>(text[i]));
    out += escape(text.substr(i, n));
    if (out.size() - start <= room) cut_at = out.size();
    i += n;
  }
  const size_t whole = out.size() - start;
  if (whole > limit) {
    out.resize(cut_at);
    out += kEllipsis;
  }
  return whole;
}

}  // namespace

void JsonWriter::comma() {
  if (!out_.empty() && out_.back() != '{' && out_.back() != '[') out_ += ',';
}

void JsonWriter::key(std::string_view name) {
  comma();
  text(name);
  out_ += ':';
}

void JsonWriter::text(std::string_view text) {
  out_ += '"';
  if (text.size() <= text_limit_ && std::all_of(text.begin(), text.end(), is_plain)) {
    out_ += text;
    longest_text_ = std::max(longest_text_, text.size());
  } else {
    const bool ascii =
        std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
    const size_t whole = append_escaped(out_, ascii ? std::string(text) : to_utf8(text), text_limit_);
    longest_text_ = std::max(longest_text_, whole);
  }
  out_ += '"';
}

void JsonWriter::begin_object() {
  comma();
  out_ += '{';
}

void JsonWriter::begin_object(std::string_view name) {
  key(name);
  out_ += '{';
}

void JsonWriter::end_object() { out_ += '}'; }

void JsonWriter::begin_array(std::string_view name) {
  key(name);
  out_ += '[';
}

void JsonWriter::end_array() { out_ += ']'; }

void JsonWriter::field(std::string_view name, std::string_view value) {
  if (value.empty()) return;
  key(name);
  text(value);
}

void JsonWriter::field(std::string_view name, uint64_t number) {
  key(name);
  std::array<char, 24> digits;
  out_.append(digits.data(), std::to_chars(digits.begin(), digits.end(), number).ptr);
}

void JsonWriter::field(std::string_view name, int64_t number) {
  key(name);
  std::array<char, 24> digits;
  out_.append(digits.data(), std::to_chars(digits.begin(), digits.end(), number).ptr);
}

void JsonWriter::field(std::string_view name, double number) {
  if (!std::isfinite(number)) return;
  key(name);
  std::array<char, 40> digits;
  const size_t before = out_.size();
  out_.append(digits.data(), std::to_chars(digits.begin(), digits.end(), number).ptr);
  // A reader that infers types from the first line must see that this is not an integer.
  if (out_.find_first_of(".e", before) == out_.npos) out_ += ".0";
}

void JsonWriter::field(std::string_view name, bool value) {
  key(name);
  out_ += value ? "true" : "false";
}

void JsonWriter::element(std::string_view value) {
  comma();
  text(value);
}

}  // namespace looptrace
