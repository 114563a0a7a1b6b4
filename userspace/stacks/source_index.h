// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "stacks/elf_object.h"

namespace looptrace {

/// Where each address of a file was written, packed: some three bytes for a line of its code. Tells the same
/// as the DWARF that it was made from, at once and without it.
class SourceIndex {
 public:
  /// See ElfObject::positions.
  std::vector<ElfObject::Position> positions(uint64_t address) const;

  size_t rows() const { return count_; }
  size_t bytes() const;

 private:
  friend class SourceIndexBuilder;

  // A function inlined into `outer` (0 = into the function itself), called from `file`:`line`.
  struct Inlined {
    uint32_t function, file, line, outer;
    bool operator==(const Inlined&) const = default;
  };
  // Where the rows of a block begin, and how many they are. Each block can be read without the others.
  struct Anchor {
    uint32_t pc, offset, rows;
  };
  // What holds from `pc` up to the next row. All zero: nothing is known.
  struct Row {
    uint32_t pc, file, line, inlined;
  };

  uint64_t base_ = 0;
  size_t count_ = 0;
  std::string packed_;
  std::vector<Anchor> anchors_;   // by pc
  std::vector<Inlined> inlined_;  // 1 is the first
  std::string texts_;
  std::vector<uint32_t> text_ends_;
  std::string text(uint32_t number) const;
};

/// Takes the code of a file piece by piece, in any order; pieces do not overlap.
class SourceIndexBuilder {
 public:
  using Row = SourceIndex::Row;
  using Inlined = SourceIndex::Inlined;

  /// `base` is the lowest address that comes.
  explicit SourceIndexBuilder(uint64_t base) { index_.base_ = base; }

  /// Its number. Equal texts have equal ones; 0 is the empty one.
  uint32_t text(std::string_view text);
  uint32_t inlined(const Inlined& inlined);

  /// A piece begins.
  void begin();
  /// Its rows, by address; the last is where it ends and all zero. False if there is too much to be kept.
  bool add(uint64_t address, uint32_t file, uint32_t line, uint32_t inlined);

  SourceIndex finish();

 private:
  void end_block();

  SourceIndex index_;
  size_t in_block_ = 0;
  Row last_{};
  std::unordered_map<std::string, uint32_t> texts_;
};

}  // namespace looptrace
