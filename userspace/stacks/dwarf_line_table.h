// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace looptrace {

/// A unit's table of lines (DWARF 2 to 5). It is a program that tells of line after line; where it is after
/// every so many is kept, to go on from there. libdw makes a list of all lines: of the 14,000 of libc's
/// regex.c in 1.1 ms, 1.3 MB and 330 page faults.
class DwarfLineTable {
 public:
  struct Strings {
    std::string_view str, line_str;  ///< .debug_str and .debug_line_str
  };
  /// `bytes` begins with the table. All of it must outlive the result. Nothing where the table is broken or
  /// of a kind that we do not know.
  static std::optional<DwarfLineTable> open(std::string_view bytes, const Strings& strings,
                                            std::string_view compilation_directory);
  /// Goes through `size` bytes of the program, to be ready to find lines; a millisecond for 300 KB.
  void read_on(size_t size);
  size_t left() const { return program_.size() - next_at_; }
  bool failed() const { return failed_; }
  /// Both at once.
  static std::optional<DwarfLineTable> read(std::string_view bytes, const Strings& strings,
                                            std::string_view compilation_directory);

  struct Place {
    uint64_t file;  ///< for file()
    int line;
  };
  /// When all is read.
  std::optional<Place> find(uint64_t address) const;

  /// A file's path, by the number that lines and call sites have. Empty if there is none.
  std::string file(uint64_t number) const;

  size_t bytes() const;

 private:
  struct File {
    std::string_view name;
    uint64_t directory;
  };
  struct Value {
    std::string_view text;
    uint64_t number = 0;
  };
  struct State {
    uint64_t address = 0, line = 1, file = 1;
    uint8_t operation = 0;  // of VLIW
  };
  struct Stretch {
    uint64_t low = 0, high = 0;  // of its rows
    State before;
    uint32_t at = 0;  // in the program
    uint32_t rows = 0;
  };
  class Header;
  class Rows;
  DwarfLineTable() = default;

  uint8_t smallest_instruction_ = 1, operations_ = 1, line_range_ = 1, opcode_base_ = 10;
  int8_t line_base_ = 0;
  std::string_view opcode_lengths_, program_;
  std::vector<std::string_view> directories_;
  std::vector<File> files_;
  std::vector<Stretch> stretches_;  // in the program's order
  Stretch open_;                    // behind these, while it is read
  State next_;
  size_t next_at_ = 0;
  bool failed_ = false;
};

}  // namespace looptrace
