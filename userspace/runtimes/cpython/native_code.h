// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "stacks/elf_object.h"

namespace looptrace::cpython {

/// Addresses [start, end) of the file's own.
struct AddressRange {
  uint64_t start = 0, end = 0;

  bool holds(uint64_t address) const { return address >= start && address < end; }
  uint64_t size() const { return end - start; }
};

/// The x86-64 functions of one ELF file by their unwind entries (FDEs): these are there in stripped files
/// too. Holds no table of its own: .eh_frame_hdr is searched where it lies.
class NativeCode {
 public:
  explicit NativeCode(const ElfObject& object);

  /// The function, or the part of one, that covers `address`; 1 MiB at most.
  std::optional<AddressRange> part(uint64_t address) const;

  enum class Branch { jump, call_or_jump };
  /// Targets outside `range` of its direct branches with 4-byte distances. Instructions are not decoded:
  /// bytes that merely look like a branch give a random target, which the caller's conditions must weed out.
  std::set<uint64_t> targets(const AddressRange& range, Branch branch) const;

 private:
  struct Entry {
    uint64_t start, fde;
  };
  std::optional<Entry> entry(uint32_t index) const;
  void open(uint64_t header);

  const ElfObject& object_;
  uint64_t header_ = 0;
  uint32_t count_ = 0;
};

/// All the code of the eval loop, whose main part is `eval` (_PyEval_EvalFrameDefault).
///
/// Compilers that know a profile move what they think is cold out of the function, to a part that has no
/// symbol in a stripped file. In Debian's static python3.11 and 3.13 that is 14 and 17 KiB with calls in
/// it; in its 3.14 and 3.15 it is the instruction dispatch itself: no eval frame returns to the symbol's
/// own range. Such a part has its own FDE, is jumped to in its middle, and jumps back: by that it is found
/// here. Builds that call one function an instruction (tail-call interpreters) need nothing: the symbol's
/// own range is on the stack once per eval frame.
std::vector<AddressRange> eval_ranges(const ElfObject& object, const Symbol& eval);

/// The cyclic garbage collector's main function, which has no symbol in a stripped file: the large private
/// function that `collect` (PyGC_Collect) calls, itself or through one small function. Empty if not found.
std::vector<AddressRange> collector_ranges(ElfObject& object, const Symbol& collect);

}  // namespace looptrace::cpython
