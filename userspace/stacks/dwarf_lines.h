// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stacks/elf_object.h"

namespace looptrace {

class ElfFile;

/// Source lines and inlined functions of one file with DWARF, by libdw. Reads, never maps, the file, and of
/// its units those that are asked for. It opens no file by itself: of split DWARF (.dwo) the lines are there,
/// inlined functions are not.
class DwarfLines {
 public:
  /// `file` must outlive the result. A supplementary file that it needs is looked for in our own root and in
  /// `root`. Null if there are no lines and units, or more than we are ready to look at.
  static std::unique_ptr<DwarfLines> open(const ElfFile& file, const std::string& root);
  ~DwarfLines();

  /// Where the units are has to be read first: of libc 45 ms, where it is compressed. And large units and
  /// tables of lines are better looked through before they are asked for. Reads for about half a millisecond;
  /// true when nothing is left to read.
  bool read_on();
  bool all_read() const;
  /// What positions() cannot do without. False if there is nothing to be had from the file.
  bool read_units();

  /// See ElfObject::positions. After read_units().
  std::vector<ElfObject::Position> positions(uint64_t address);

  /// Forgets the units' bytes, not where to find them and their functions: those that are asked for are read
  /// again.
  void drop_units();
  /// These bytes had to be unpacked.
  bool is_packed() const;

  size_t bytes() const;

 private:
  struct Impl;
  explicit DwarfLines(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace looptrace
