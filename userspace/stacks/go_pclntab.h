// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "looptrace.h"

namespace looptrace {

class ElfFile;

/// Go's own table of functions, files, lines and frame sizes (.gopclntab), which a stripped Go program
/// keeps, since its runtime needs it. The layout of Go 1.18 and later (runtime/symtab.go, type pcHeader, and
/// runtime2.go, type _func); others are not read. Inlined calls are not told apart.
class GoPclntab {
 public:
  /// Null where there is none, where its version is not known, or where it is not certain at which address
  /// the program's Go code begins.
  static std::unique_ptr<GoPclntab> load(const ElfFile& file);

  struct Function {
    std::string_view name;  ///< "main.(*worker).middle"; lives as long as the table
    uint64_t start = 0, end = 0;
  };
  std::optional<Function> find(uint64_t address) const;

  struct Line {
    std::string_view file;
    int line = 0;
  };
  std::optional<Line> line_of(uint64_t address) const;

  /// Unwind rows by the table of frame sizes: exact in prologues and frameless functions, where frame
  /// pointers are not. Put in place of what `rows` has for Go's code.
  void add_rows(std::vector<lt_row>& rows) const;

  size_t bytes() const { return data_.capacity(); }

 private:
  struct Entry;
  GoPclntab() = default;
  bool parse();
  bool place(const ElfFile& file);
  uint32_t u32(uint64_t offset) const;
  std::string_view text_at(uint64_t offset) const;
  std::optional<Entry> entry(uint32_t index) const;
  std::optional<Entry> entry_of(uint64_t address) const;
  template <typename AtStep>
  void run(uint32_t table, uint64_t start, AtStep at_step) const;
  std::optional<int32_t> value_at(uint32_t table, const Entry& entry, uint64_t address) const;

  std::string data_;
  uint8_t quantum_ = 1;
  uint32_t functions_ = 0;
  uint64_t names_ = 0, units_ = 0, files_ = 0, values_ = 0, table_ = 0;  // offsets in data_
  uint64_t text_ = 0;                                                    // address that entries count from
};

}  // namespace looptrace
