// SPDX-License-Identifier: Apache-2.0
#include "stacks/dwarf_line_table.h"

#include <dwarf.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "stacks/byte_reader.h"

namespace looptrace {
namespace {

// Of a sound table, a look goes through one or two stretches: a microsecond.
constexpr uint32_t kStretchRows = 128;
constexpr size_t kMaxFiles = 1u << 17;      // and directories
constexpr size_t kMaxStretches = 1u << 16;  // behind them, one that has the rest

std::string_view string_at(std::string_view section, uint64_t at) {
  if (at >= section.size()) return {};
  return ByteReader(section.substr(at)).c_string();
}

}  // namespace

// Reads what comes before the program.
class DwarfLineTable::Header {
 public:
  Header(std::string_view bytes, const Strings& strings) : in_(bytes), strings_(strings) {}

  bool read(DwarfLineTable& table, std::string_view compilation_directory) {
    uint64_t length = in_.get<uint32_t>();
    is_64_ = length == 0xffffffff;
    if (is_64_) length = in_.get<uint64_t>();
    in_ = ByteReader(in_.bytes(length));
    const auto version = in_.get<uint16_t>();
    if (version < 2 || version > 5) return false;
    if (version == 5) {
      const auto address_size = in_.get<uint8_t>(), segment_size = in_.get<uint8_t>();
      if (address_size != sizeof(uint64_t) || segment_size != 0) return false;
    }
    const uint64_t header_size = offset();
    ByteReader header(in_.bytes(header_size));
    table.program_ = in_.bytes(in_.left());
    if (in_.failed()) return false;
    in_ = header;
    table.smallest_instruction_ = in_.get<uint8_t>();
    if (version >= 4) table.operations_ = in_.get<uint8_t>();
    (void)in_.get<uint8_t>();  // whether lines begin statements: all are looked at
    table.line_base_ = in_.get<int8_t>();
    table.line_range_ = in_.get<uint8_t>();
    table.opcode_base_ = in_.get<uint8_t>();
    if (table.operations_ == 0 || table.line_range_ == 0 || table.opcode_base_ == 0) return false;
    table.opcode_lengths_ = in_.bytes(table.opcode_base_ - 1u);
    if (version == 5) {
      for (const File& directory : entries()) table.directories_.push_back(directory.name);
      table.files_ = entries();
    } else {
      read_old_entries(table, compilation_directory);
    }
    return !in_.failed() && !failed_ && table.directories_.size() <= kMaxFiles &&
           table.files_.size() <= kMaxFiles;
  }

 private:
  uint64_t offset() { return is_64_ ? in_.get<uint64_t>() : in_.get<uint32_t>(); }

  // Of directory and file 0 the standard says what they are; the table begins with 1.
  void read_old_entries(DwarfLineTable& table, std::string_view compilation_directory) {
    table.directories_.push_back(compilation_directory);
    const auto is_next = [&](const auto& list, std::string_view name) {
      return !name.empty() && list.size() <= kMaxFiles;
    };
    for (auto name = in_.c_string(); is_next(table.directories_, name); name = in_.c_string())
      table.directories_.push_back(name);
    table.files_.push_back({"???", 0});
    for (auto name = in_.c_string(); is_next(table.files_, name); name = in_.c_string()) {
      table.files_.push_back({name, in_.uleb()});
      (void)in_.uleb();  // when it was changed, and its size
      (void)in_.uleb();
    }
  }

  // What each entry has comes first, then the entries.
  std::vector<File> entries() {
    struct Field {
      uint64_t content, form;
    };
    std::vector<Field> fields(in_.get<uint8_t>());
    for (Field& field : fields) {
      field.content = in_.uleb();
      field.form = in_.uleb();
    }
    const uint64_t count = in_.uleb();
    // Each takes a byte a field at least.
    failed_ |= count > std::min<uint64_t>(in_.left(), kMaxFiles) || (fields.empty() && count);
    std::vector<File> result;
    if (failed_) return result;
    result.reserve(count);
    for (uint64_t i = 0; i < count && !in_.failed() && !failed_; ++i) {
      File& file = result.emplace_back();
      for (const Field& field : fields) {
        const Value read = value(field.form);
        if (field.content == DW_LNCT_path) file.name = read.text;
        if (field.content == DW_LNCT_directory_index) file.directory = read.number;
      }
    }
    return result;
  }

  Value value(uint64_t form) {
    switch (form) {
      case DW_FORM_string:
        return {in_.c_string()};
      case DW_FORM_line_strp:
        return {string_at(strings_.line_str, offset())};
      case DW_FORM_strp:
        return {string_at(strings_.str, offset())};
      case DW_FORM_udata:
        return {{}, in_.uleb()};
      case DW_FORM_data1:
        return {{}, in_.get<uint8_t>()};
      case DW_FORM_data2:
        return {{}, in_.get<uint16_t>()};
      case DW_FORM_data4:
        return {{}, in_.get<uint32_t>()};
      case DW_FORM_data8:
        return {{}, in_.get<uint64_t>()};
      case DW_FORM_data16:  // a file's MD5 sum
        return {in_.bytes(16)};
      case DW_FORM_block:
        return {in_.bytes(in_.uleb())};
      default:
        failed_ = true;
        return {};
    }
  }

  ByteReader in_;
  const Strings& strings_;
  bool is_64_ = false, failed_ = false;
};

// Runs the program from some place on, row by row.
class DwarfLineTable::Rows {
 public:
  Rows(const DwarfLineTable& table, const State& state, size_t at)
      : state(state), table_(table), in_(table.program_.substr(at)), from_(at) {}

  State state;          // of the row
  bool is_end = false;  // of a sequence: there is no line from here on

  size_t at() const { return from_ + in_.offset(); }
  bool failed() const { return failed_ || in_.failed(); }

  /// False behind the last row.
  bool next() {
    if (is_end) state = {};
    is_end = false;
    while (!in_.done() && !failed()) {
      const auto opcode = in_.get<uint8_t>();
      if (opcode >= table_.opcode_base_) {
        const unsigned by = opcode - table_.opcode_base_;
        state.line += static_cast<uint64_t>(int64_t{table_.line_base_} + by % table_.line_range_);
        advance(by / table_.line_range_);
        return true;
      }
      if (step(opcode)) return true;
    }
    return false;
  }

 private:
  // True where it makes a row.
  bool step(uint8_t opcode) {
    switch (opcode) {
      case 0: {
        ByteReader extended(in_.bytes(in_.uleb()));
        const auto kind = extended.get<uint8_t>();
        if (kind == DW_LNE_set_address) {
          state.address = extended.get<uint64_t>();
          state.operation = 0;
        }
        failed_ |= extended.failed();
        is_end = kind == DW_LNE_end_sequence;
        return is_end;
      }
      case DW_LNS_copy:
        return true;
      case DW_LNS_advance_pc:
        advance(in_.uleb());
        break;
      case DW_LNS_advance_line:
        state.line += static_cast<uint64_t>(in_.sleb());
        break;
      case DW_LNS_set_file:
        state.file = in_.uleb();
        break;
      case DW_LNS_const_add_pc:
        advance((255u - table_.opcode_base_) / table_.line_range_);
        break;
      case DW_LNS_fixed_advance_pc:
        state.address += in_.get<uint16_t>();
        state.operation = 0;
        break;
      default:  // of no use here, or unknown
        for (auto left = static_cast<uint8_t>(table_.opcode_lengths_[opcode - 1u]); left; --left)
          (void)in_.uleb();
    }
    return false;
  }

  void advance(uint64_t by) {
    if (table_.operations_ > 1) {
      by += state.operation;
      state.operation = static_cast<uint8_t>(by % table_.operations_);
      by /= table_.operations_;
    }
    state.address += by * table_.smallest_instruction_;
  }

  const DwarfLineTable& table_;
  ByteReader in_;
  size_t from_;
  bool failed_ = false;
};

std::optional<DwarfLineTable> DwarfLineTable::open(std::string_view bytes, const Strings& strings,
                                                   std::string_view compilation_directory) {
  DwarfLineTable table;
  if (!Header(bytes, strings).read(table, compilation_directory)) return std::nullopt;
  return table;
}

std::optional<DwarfLineTable> DwarfLineTable::read(std::string_view bytes, const Strings& strings,
                                                   std::string_view compilation_directory) {
  auto table = open(bytes, strings, compilation_directory);
  if (table) table->read_on(table->left());
  if (table && table->failed()) return std::nullopt;
  return table;
}

// A stretch ends with its sequence, so that it is one range of code.
void DwarfLineTable::read_on(size_t size) {
  Rows rows(*this, next_, next_at_);
  const size_t from = next_at_;
  while (next_at_ - from < size) {
    if (!rows.next()) {
      next_at_ = program_.size();
      failed_ = rows.failed();
      break;
    }
    const uint64_t address = rows.state.address;
    if (open_.rows == 0) open_ = {address, address, next_, static_cast<uint32_t>(next_at_), 0};
    open_.low = std::min(open_.low, address);
    open_.high = std::max(open_.high, address);
    ++open_.rows;
    next_ = rows.is_end ? State() : rows.state;
    next_at_ = rows.at();
    const bool is_full = rows.is_end || open_.rows >= kStretchRows;
    if (!is_full || stretches_.size() >= kMaxStretches) continue;
    stretches_.push_back(open_);
    open_.rows = 0;
  }
  if (left()) return;
  if (open_.rows) stretches_.push_back(open_);
  open_.rows = 0;
  stretches_.shrink_to_fit();
}

// The line of the highest row at or below the address, if no sequence ends there. Of rows of one address the
// last counts, but an end only if it is alone. Sequences are in no order, and overlap in broken files.
std::optional<DwarfLineTable::Place> DwarfLineTable::find(uint64_t address) const {
  State best;
  bool found = false, is_end = false;
  const Stretch* best_in = nullptr;
  const auto look_into = [&](const Stretch& stretch) {
    Rows rows(*this, stretch.before, stretch.at);
    for (uint32_t i = 0; i < stretch.rows && rows.next(); ++i) {
      const uint64_t at = rows.state.address;
      if (at > address || (found && at < best.address)) continue;
      if (found && at == best.address &&
          (rows.is_end != is_end ? rows.is_end : std::less<>()(&stretch, best_in)))
        continue;
      best = rows.state;
      best_in = &stretch;
      is_end = rows.is_end;
      found = true;
    }
  };
  std::optional<uint64_t> highest;  // row of those that are wholly below
  for (const Stretch& stretch : stretches_) {
    if (stretch.low <= address && address <= stretch.high) look_into(stretch);
    if (stretch.high < address) highest = std::max(highest.value_or(0), stretch.high);
  }
  if (highest && (!found || *highest >= best.address)) {
    for (const Stretch& stretch : stretches_)
      if (stretch.high == *highest) look_into(stretch);
  }
  if (!found || is_end) return std::nullopt;
  const bool fits = best.line <= static_cast<uint64_t>(std::numeric_limits<int>::max());
  return Place{best.file, fits ? static_cast<int>(best.line) : 0};
}

std::string DwarfLineTable::file(uint64_t number) const {
  if (number >= files_.size()) return {};
  const auto& [name, directory] = files_[number];
  if (name.starts_with('/') || directory >= directories_.size() || directories_[directory].empty())
    return std::string(name);
  return std::string(directories_[directory]) + "/" + std::string(name);
}

size_t DwarfLineTable::bytes() const {
  return sizeof *this + directories_.capacity() * sizeof directories_[0] +
         files_.capacity() * sizeof files_[0] + stretches_.capacity() * sizeof stretches_[0];
}

}  // namespace looptrace
