// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "runtimes/hotspot/code_cache.h"
#include "runtimes/hotspot/unsigned5.h"
#include "runtimes/hotspot/vm_structs.h"
#include "runtimes/remote_memory.h"

namespace looptrace::hotspot {

/// A place in the source, as bytecodes count.
struct Place {
  uint64_t method = 0;  ///< its Method*
  int bytecode = 0;     ///< index; negative: at its entry
  bool operator==(const Place&) const = default;
};

/// What the compilers keep of their code for deoptimization: for each call in it the method and bytecode that
/// it was made from, and those that this was inlined into (PcDesc, ScopeDesc).
class DebugInfo {
 public:
  static constexpr size_t kMaxDepth = 64;  ///< of methods inlined into each other

  static std::vector<std::string_view> types();
  /// Nothing where the tables do not tell (JDK 23 and 24 keep it in a way of their own).
  static std::optional<DebugInfo> of(const VmStructs& structs, int major);

  /// The places of the call that returns to `address`, innermost first, the compiled method's own last.
  /// Empty if the compiler noted none.
  std::vector<Place> call(const RemoteMemory& memory, const CodeBlob& blob, uint64_t address) const;

 private:
  struct Tables {
    uint64_t calls = 0, calls_end = 0;  // PcDescs, by address of their code
    uint64_t scopes = 0;                // ScopeDescs
    uint64_t metadata = 0;              // Method*s, among others
  };
  Tables tables(const RemoteMemory& memory, uint64_t nmethod) const;
  /// Where the ScopeDesc of the call is; 0 if there is none.
  uint32_t find(const RemoteMemory& memory, const Tables& tables, int offset) const;

  uint64_t pc_size_ = 0, pc_offset_ = 0, pc_scope_ = 0;  // PcDesc
  bool apart_ = false;                                   // all that is outside of the nmethod
  // Of an nmethod. Where it is apart: in its immutable data, and behind the relocations of its mutable data.
  uint64_t calls_ = 0, calls_end_ = 0, scopes_ = 0;
  bool scopes_by_address_ = false;
  uint64_t immutable_ = 0, mutable_ = 0, metadata_ = 0;
  Unsigned5 numbers_;
};

}  // namespace looptrace::hotspot
