// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stacks/elf_object.h"

namespace looptrace {

class ElfFile;

/// Source lines and inlined functions of one file with DWARF, by libdw. Reads, never maps, the file.
/// Compressed sections are handled by libdw. It opens no file by itself: of split DWARF (.dwo) the lines are
/// there, inlined functions are not.
class DwarfLines {
 public:
  /// True if `file` has line and unit information of a size we are ready to hold in memory.
  static bool has_dwarf(const ElfFile& file);

  /// `file` must outlive the result. A supplementary file that it needs is looked for in our own root and in
  /// `root`. Null if libdw refuses it.
  static std::unique_ptr<DwarfLines> open(const ElfFile& file, const std::string& root);
  ~DwarfLines();

  /// See ElfObject::positions.
  std::vector<ElfObject::Position> positions(uint64_t address);

  size_t bytes() const;

 private:
  struct Impl;
  explicit DwarfLines(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace looptrace
