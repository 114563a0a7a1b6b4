// SPDX-License-Identifier: Apache-2.0
#include "cli/units.h"

#include <charconv>
#include <limits>
#include <optional>
#include <span>
#include <string>

namespace looptrace {
namespace {

struct Unit {
  std::string_view name;
  uint64_t size;
};

constexpr Unit kTimes[] = {
    {"ns", 1},         {"us", 1'000},        {"\u00b5s", 1'000},  // micro sign
    {"ms", 1'000'000}, {"s", 1'000'000'000}, {"min", 60'000'000'000}, {"h", 3'600'000'000'000},
};
constexpr Unit kSizes[] = {
    {"", 1},           {"b", 1},         {"k", 1u << 10},   {"kb", 1u << 10},
    {"kib", 1u << 10}, {"m", 1u << 20},  {"mb", 1u << 20},  {"mib", 1u << 20},
    {"g", 1u << 30},   {"gb", 1u << 30}, {"gib", 1u << 30},
};

Error usage(std::string what) { return Error{std::move(what), 0, Fault::usage}; }

std::string in_quotes(std::string_view text) { return '\'' + std::string(text) + '\''; }

std::optional<uint64_t> find_unit(std::span<const Unit> units, std::string_view name) {
  for (const Unit& unit : units) {
    if (unit.name == name) return unit.size;
  }
  return std::nullopt;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// A decimal number and what follows it.
struct Amount {
  std::string_view whole, fraction, rest;
};

std::optional<Amount> split_amount(std::string_view text) {
  Amount amount;
  size_t at = 0;
  while (at < text.size() && is_digit(text[at])) ++at;
  amount.whole = text.substr(0, at);
  if (at < text.size() && text[at] == '.') {
    const size_t from = ++at;
    while (at < text.size() && is_digit(text[at])) ++at;
    amount.fraction = text.substr(from, at - from);
    if (amount.fraction.empty()) return std::nullopt;
  }
  if (amount.whole.empty()) return std::nullopt;
  while (at < text.size() && text[at] == ' ') ++at;
  amount.rest = text.substr(at);
  return amount;
}

// whole.fraction * unit in integers; std::nullopt if it overflows. Digits below the smallest unit are
// dropped.
std::optional<uint64_t> multiply(const Amount& amount, uint64_t unit) {
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  uint64_t whole = 0;
  const auto [end, error] = std::from_chars(amount.whole.begin(), amount.whole.end(), whole);
  if (error != std::errc() || end != amount.whole.end() || whole > kMost / unit) return std::nullopt;
  constexpr size_t kDigits = 18;  // as many as 64 bits hold
  uint64_t fraction = 0, scale = 1;
  for (const char digit : amount.fraction.substr(0, kDigits)) {
    fraction = fraction * 10 + static_cast<uint64_t>(digit - '0');
    scale *= 10;
  }
  const uint64_t total = whole * unit;
  const auto part = static_cast<uint64_t>(static_cast<unsigned __int128>(fraction) * unit / scale);
  if (total > kMost - part) return std::nullopt;
  return total + part;
}

}  // namespace

Result<uint64_t> parse_duration(std::string_view text, std::string_view bare_unit) {
  const auto amount = split_amount(text);
  if (!amount) return usage(in_quotes(text) + " is not a duration; write a number and a unit, as in 50ms");
  const auto unit = find_unit(kTimes, amount->rest.empty() ? bare_unit : amount->rest);
  if (!unit) {
    return usage(in_quotes(text) + " has the unknown unit " + in_quotes(amount->rest) +
                 "; units are ns, us, ms, s, min and h, as in 50ms");
  }
  const auto ns = multiply(*amount, *unit);
  if (!ns)
    return usage(in_quotes(text) + " is too long; the longest duration is 584 years, in nanoseconds 2^64");
  return *ns;
}

Result<uint64_t> parse_size(std::string_view text) {
  const auto amount = split_amount(text);
  if (!amount)
    return usage(in_quotes(text) + " is not a size; write bytes or a number and a unit, as in 8000 or 64k");
  const auto unit = find_unit(kSizes, lower(amount->rest));
  if (!unit) {
    return usage(in_quotes(text) + " has the unknown unit " + in_quotes(amount->rest) +
                 "; units are k, M and G, as in 64k");
  }
  const auto bytes = multiply(*amount, *unit);
  if (!bytes) return usage(in_quotes(text) + " is more than can be counted; try 64k");
  return *bytes;
}

Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
  if (error == std::errc() && end == text.end() && !text.empty() && number >= least && number <= most)
    return number;
  std::string range = "a whole number from " + std::to_string(least);
  range += most == std::numeric_limits<uint64_t>::max() ? " on" : " to " + std::to_string(most);
  return usage(in_quotes(text) + " is not " + range);
}

}  // namespace looptrace
