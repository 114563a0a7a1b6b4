// SPDX-License-Identifier: Apache-2.0
#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <memory>

#include "base/free_with.h"
#include "stacks/rust_demangle.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace {

constexpr size_t kMaxMangled = 8192;
constexpr uint64_t kMaxExpansion = 1u << 20;

// An upper bound of an Itanium name's demangled size. A substitution (S_, S0_, ...) or template parameter
// (T_, ...) prints again something that came before: at most all that was printed when its number was first
// used. With each new number a hostile name can double in size, so 100 bytes are enough to fill any memory.
uint64_t expansion_bound(std::string_view name) {
  constexpr size_t kNumbers = 256;
  uint64_t substitutions[kNumbers] = {}, parameters[kNumbers] = {};
  uint64_t total = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    total += 8;  // the longest that one letter stands for, on average: "unsigned "
    if (name[i] >= '0' && name[i] <= '9') {  // an identifier: its letters mean nothing
      size_t size = 0;
      while (i < name.size() && name[i] >= '0' && name[i] <= '9' && size < name.size())
        size = size * 10 + static_cast<size_t>(name[i++] - '0');
      total += size;
      i += size;
      --i;
      continue;
    }
    // A nested function has template parameters of its own.
    if (name[i] == 'Z') std::fill(std::begin(parameters), std::end(parameters), 0);
    if (name[i] != 'S' && name[i] != 'T') continue;
    size_t end = i + 1, number = 0;
    while (end < name.size() &&
           ((name[end] >= '0' && name[end] <= '9') || (name[end] >= 'A' && name[end] <= 'Z'))) {
      number = number * 36 + static_cast<size_t>(name[end] <= '9' ? name[end] - '0' : name[end] - 'A' + 10);
      if (number >= kNumbers) break;
      ++end;
    }
    if (end >= name.size() || name[end] != '_') continue;
    number = end == i + 1 ? 0 : number + 1;
    if (number >= kNumbers) return std::numeric_limits<uint64_t>::max();
    uint64_t* sizes = name[i] == 'S' ? substitutions : parameters;
    if (sizes[number] == 0) {
      sizes[number] = total;
      // What has a lower number than one seen is not newer, hence not larger.
      for (size_t n = number + 1; n < kNumbers; ++n)
        if (sizes[n]) sizes[number] = std::min(sizes[number], sizes[n]);
    }
    total += sizes[number];
    if (total > kMaxExpansion) return total;
    i = end;
  }
  return total;
}

}  // namespace

std::string demangle(std::string_view mangled) {
  if (mangled.starts_with("_R")) return demangle_rust_v0(mangled).value_or(std::string(mangled));
  if (!mangled.starts_with("_Z") || mangled.size() > kMaxMangled) return std::string(mangled);
  if (auto rust = demangle_rust_legacy(mangled)) return std::move(*rust);
  std::string name(mangled);
  if (expansion_bound(mangled) > kMaxExpansion) return name;
  int status = -1;
  const std::unique_ptr<char, FreeWith<std::free>> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status));
  return status == 0 && text ? std::string(text.get()) : name;
}

}  // namespace looptrace
