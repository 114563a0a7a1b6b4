// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace looptrace {

/// The kernel's functions by address, from /proc/kallsyms: about 5 MB for 150,000 of them.
class KernelSymbols {
 public:
  /// Reads the list; empty if it cannot be read.
  static KernelSymbols load(const std::string& path = "/proc/kallsyms");

  struct Found {
    std::string_view name;
    std::string_view module;  ///< empty for the kernel proper
    uint64_t offset = 0;      ///< from the function's start
  };
  std::optional<Found> find(uint64_t address) const;

  /// The kernel printed every address as 0 (kernel.kptr_restrict, or no CAP_SYSLOG): nothing can be named.
  bool hidden() const { return hidden_; }
  size_t size() const { return entries_.size(); }
  size_t bytes() const;

 private:
  struct Entry {
    uint32_t start;  // from base_: text and modules are within 4 GiB on x86-64 and arm64
    uint32_t name;   // offset in names_
  };
  struct ModuleRun {
    uint32_t first;   // index of the first entry
    uint32_t module;  // index in modules_
  };

  bool hidden_ = false;
  uint64_t base_ = 0;
  std::vector<Entry> entries_;   // by start
  std::vector<ModuleRun> runs_;  // entries from `first` on belong to `module`
  std::vector<std::string> modules_;
  std::string names_;  // NUL-terminated
};

}  // namespace looptrace
