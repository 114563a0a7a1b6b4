// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/version.h"

#include <charconv>

namespace looptrace::cpython {
namespace {

std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// "3.9" off the front; two digits for the minor at most.
std::optional<Version> take_major_minor(std::string_view& text) {
  Version v;
  const auto major = take_number(text);
  if (!major || *major < 2 || *major > 3 || !take(text, ".")) return std::nullopt;
  const auto minor = take_number(text);
  if (!minor || *minor > 99) return std::nullopt;
  v.major = *major;
  v.minor = *minor;
  return v;
}

}  // namespace

Version Version::from_hex(uint64_t hex) {
  Version v;
  v.major = static_cast<int>(hex >> 24 & 0xff);
  v.minor = static_cast<int>(hex >> 16 & 0xff);
  v.micro = static_cast<int>(hex >> 8 & 0xff);
  v.level = static_cast<int>(hex >> 4 & 0xf);
  v.serial = static_cast<int>(hex & 0xf);
  return v;
}

std::optional<Version> Version::from_text(std::string_view text) {
  auto v = take_major_minor(text);
  if (!v || !take(text, ".")) return std::nullopt;
  const auto micro = take_number(text);
  if (!micro || *micro > 255) return std::nullopt;
  v->micro = *micro;
  if (take(text, "a")) {
    v->level = 0xa;
  } else if (take(text, "b")) {
    v->level = 0xb;
  } else if (take(text, "rc")) {
    v->level = 0xc;
  }
  if (v->level != 0xf) v->serial = take_number(text).value_or(0);
  return v;
}

std::optional<Version> Version::from_file_name(std::string_view name) {
  take(name, "lib");
  if (!take(name, "python")) return std::nullopt;
  return take_major_minor(name);
}

std::string Version::text() const {
  std::string out = std::to_string(major) + "." + std::to_string(minor);
  if (micro >= 0) out += "." + std::to_string(micro);
  if (level != 0xf) {
    out += level == 0xc ? "rc" : level == 0xb ? "b" : "a";
    out += std::to_string(serial);
  }
  return out;
}

}  // namespace looptrace::cpython
