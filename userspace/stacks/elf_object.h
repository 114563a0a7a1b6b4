// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

struct lt_row;

namespace looptrace {

class Debuginfod;

/// A function's place in a file. Addresses are the file's own.
struct Symbol {
  std::string_view name;  ///< mangled; lives as long as the ElfObject
  uint64_t start = 0;
  uint64_t size = 0;
};

/// One ELF file: unwind rows at once, symbols and DWARF lazily. All input is hostile: every read is
/// bounded and a broken file yields what could be read, never a crash. Not thread-safe.
class ElfObject {
 public:
  /// `name` is the file's path as its process sees it: used in messages, as the module's name, and to find
  /// a separate debug file, in our own root and then in `root` (/proc/PID/root) if not empty, then by
  /// `servers`. Takes the open file and keeps it open: DWARF and data are read when asked for, with pread,
  /// since a mapped file that its owner truncates would kill us with SIGBUS.
  static Result<std::shared_ptr<ElfObject>> from_fd(UniqueFd fd, std::string name, std::string root = {},
                                                    std::shared_ptr<Debuginfod> servers = nullptr);
  static Result<std::shared_ptr<ElfObject>> from_memory(std::vector<uint8_t> image, std::string name);
  ~ElfObject();

  const std::string& name() const;      ///< base name: "libc.so.6"
  const std::string& path() const;      ///< as given
  const std::string& build_id() const;  ///< lower-case hex; empty if none
  /// ET_EXEC, or ET_DYN with the PIE flag or with PT_INTERP and no soname (libc.so.6 has an interpreter).
  bool is_main_program() const;

  /// Address in memory of file offset `offset` mapped at `start`: the bias of that mapping, or nothing
  /// if no PT_LOAD covers the offset.
  std::optional<uint64_t> bias(uint64_t start, uint64_t offset) const;

  /// .eh_frame, or Go's own tables, compiled to rows sorted by pc; empty where there is none. Built on first
  /// use, and anew when they were dropped.
  const std::vector<lt_row>& rows();
  /// Whether an unwind table vouches for code at `address`; padding between functions counts as code. Needs
  /// no rows once they were built.
  bool covers(uint64_t address);
  /// Rows are 8 bytes each, and a large program has a million; once the kernel has them, few walks need them
  /// here. What rows() returned is gone.
  void drop_rows();
  /// Rows, indexes of names and units of DWARF that were not used since the last call.
  void drop_idle();

  /// The function that holds `address`: .symtab, else that of a separate debug file, else .gnu_debugdata and
  /// .dynsym; and PLT stubs ("write@plt"); else by .gopclntab. The first call builds the table.
  std::optional<Symbol> find_symbol(uint64_t address);

  /// The address of a defined symbol by its exact name (.dynsym, then .symtab).
  std::optional<Symbol> find_by_name(std::string_view name);

  /// Bytes of the file that lie at virtual address `address`; false if not in the file.
  bool read(uint64_t address, void* into, size_t size) const;

  /// The section's bytes as in the file (compressed ones stay so), empty if absent or SHT_NOBITS. They live
  /// as long as the object and count in bytes().
  std::string_view section(std::string_view name) const;

  /// Source position by DWARF (own or separate debug file), else by .gopclntab; nothing if there is none.
  struct Position {
    std::string function;  ///< demangled; empty for the outermost (use the symbol)
    std::string file;
    int line = 0;
  };
  /// Innermost inlined function first, the function that really holds the address last.
  std::vector<Position> positions(uint64_t address);

  /// find_symbol() and positions() read much of some files when they are first called: this reads it before,
  /// lines in pieces of about half a millisecond. True when nothing is left to read.
  bool read_on(bool lines);
  /// The same of lines alone: then positions() takes a millisecond.
  bool read_lines_on();
  bool lines_are_read();

  /// What can be built again when it is asked for: all that and symbols. What find_symbol() returned is gone.
  void drop_tables();

  /// Closes the DWARF that positions() opened; the next call opens it again.
  void drop_dwarf();
  /// Forgets the units' bytes, not where they are: those that are asked for then take a millisecond.
  void drop_units();
  size_t dwarf_bytes() const;

  size_t bytes() const;  ///< memory held, for the cache's budget

 private:
  struct Impl;
  explicit ElfObject(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace looptrace
