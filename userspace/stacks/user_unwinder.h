// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "stacks/module.h"

namespace looptrace {

struct UnwindRegisters {
  uint64_t ip = 0, sp = 0, bp = 0;
  std::array<uint64_t, 16> general{};  ///< by DWARF number
  uint16_t known = 0;                  ///< bit n: general[n] is what the thread had
  bool bp_known = true;                ///< false: /proc tells ip and sp only
};

struct UnwoundStack {
  std::vector<uint64_t> addresses;  ///< leaf first; the first is the ip, the rest return addresses
  /// Of frames that no unwind table covers, as code of JIT compilers, and of interpreters: where they are,
  /// their frame and stack pointers.
  struct Pointers {
    uint32_t frame;  ///< index into addresses
    uint64_t bp, sp;
    uint64_t address;
  };
  std::vector<Pointers> uncovered;
  uint32_t status = 0;    ///< enum lt_unwind_status
  bool lacks_bp = false;  ///< it ended where rbp would have been needed, and was not known
};

/// Reads 8 bytes of the thread's memory; false if it cannot.
using ReadWord = std::function<bool(uint64_t address, uint64_t& value)>;

/// The row unwinder in user space, for threads that are blocked and whose stack BPF did not take. Same
/// rows and same step (bpf/unwind_rows.h) as in BPF.
UnwoundStack unwind(const ProcessModules& modules, UnwindRegisters registers, const ReadWord& read,
                    size_t max_frames = 384);

/// A reader of `pid`'s memory by process_vm_readv, which also faults pages in. Reads in 4 KiB pieces
/// and keeps a few of them: make a new reader for each walk.
ReadWord memory_reader(pid_t pid);

}  // namespace looptrace
