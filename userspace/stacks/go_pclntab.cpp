// SPDX-License-Identifier: Apache-2.0
#include "stacks/go_pclntab.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "stacks/byte_reader.h"
#include "stacks/eh_frame.h"
#include "stacks/elf_file.h"

namespace looptrace {
namespace {

constexpr uint64_t kHeader = 72;
constexpr uint32_t kMagic118 = 0xfffffff0, kMagic120 = 0xfffffff1;
constexpr uint32_t kNone = ~uint32_t{0};
// kubelet has 170,000.
constexpr uint32_t kMaxFunctions = 4u << 20;
// Steps of one function's table: the longest functions have some ten thousands.
constexpr size_t kMaxSteps = 1u << 20;

// internal/abi/symtab.go
constexpr uint8_t kTopFrame = 1, kWritesSp = 2;

uint64_t u64_at(const std::string& data, uint64_t offset) {
  uint64_t value = 0;
  if (offset + sizeof value <= data.size()) std::memcpy(&value, data.data() + offset, sizeof value);
  return value;
}

}  // namespace

// One function: its _func begins at `record` in data_.
struct GoPclntab::Entry {
  uint64_t start, end, record;
};

std::unique_ptr<GoPclntab> GoPclntab::load(const ElfFile& file) {
  if (file.header().e_machine != EM_X86_64) return nullptr;
  const ElfFile::Section* section = file.find_section(".gopclntab");
  if (!section) section = file.find_section(".data.rel.ro.gopclntab");
  if (!section) return nullptr;
  std::unique_ptr<GoPclntab> table(new GoPclntab);
  table->data_ = file.load(*section);
  if (!table->parse() || !table->place(file)) return nullptr;
  return table;
}

bool GoPclntab::parse() {
  if (data_.size() < kHeader) return false;
  const uint32_t magic = u32(0);
  if (magic != kMagic118 && magic != kMagic120) return false;
  quantum_ = static_cast<uint8_t>(data_[6]);
  if (data_[4] || data_[5] || quantum_ != 1 || data_[7] != 8) return false;
  const uint64_t functions = u64_at(data_, 8);
  names_ = u64_at(data_, 32);
  units_ = u64_at(data_, 40);
  files_ = u64_at(data_, 48);
  values_ = u64_at(data_, 56);
  table_ = u64_at(data_, 64);
  for (const uint64_t offset : {names_, units_, files_, values_, table_})
    if (offset < kHeader || offset >= data_.size()) return false;
  if (functions == 0 || functions > kMaxFunctions || functions * 8 + 4 > data_.size() - table_) return false;
  functions_ = static_cast<uint32_t>(functions);
  return true;
}

// The header has the address in programs of Go before 1.26 that are not relocated; else the module data has
// it. Without either it is .text's, if the program's entry point is then found to be Go's own.
bool GoPclntab::place(const ElfFile& file) {
  text_ = u64_at(data_, 24);
  if (text_) return true;
  if (const ElfFile::Section* module = file.find_section(".go.module")) {
    // moduledata: the header's address, five slices, ftab's slice, findfunctab, minpc, maxpc, text.
    constexpr uint64_t kText = (1ull + 6 * 3 + 3) * 8;
    uint64_t text = 0;
    if (module->header.sh_size >= kText + 8 && file.pread(module->header.sh_offset + kText, &text, 8) &&
        text) {
      text_ = text;
      return true;
    }
  }
  const ElfFile::Section* section = file.find_section(".text");
  if (!section) return false;
  text_ = section->header.sh_addr;
  const auto entry = find(file.header().e_entry);
  return entry && entry->start == file.header().e_entry && entry->name == "_rt0_amd64_linux";
}

uint32_t GoPclntab::u32(uint64_t offset) const {
  uint32_t value = kNone;
  if (offset + sizeof value <= data_.size()) std::memcpy(&value, data_.data() + offset, sizeof value);
  return value;
}

std::string_view GoPclntab::text_at(uint64_t offset) const {
  if (offset >= data_.size()) return {};
  const std::string_view rest = std::string_view(data_).substr(static_cast<size_t>(offset));
  const size_t end = rest.find('\0');
  return end == std::string_view::npos ? std::string_view() : rest.substr(0, end);
}

std::optional<GoPclntab::Entry> GoPclntab::entry(uint32_t index) const {
  const uint64_t at = table_ + uint64_t{index} * 8;
  const Entry e{text_ + u32(at), text_ + u32(at + 8), table_ + u32(at + 4)};
  constexpr uint64_t kRecord = 44;
  if (e.start >= e.end || e.record + kRecord > data_.size()) return std::nullopt;
  return e;
}

std::optional<GoPclntab::Entry> GoPclntab::entry_of(uint64_t address) const {
  if (address < text_ || address - text_ > std::numeric_limits<uint32_t>::max()) return std::nullopt;
  const auto offset = static_cast<uint32_t>(address - text_);
  uint32_t low = 0, high = functions_;  // the last entry that is not above
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (u32(table_ + uint64_t{middle} * 8) <= offset ? low : high) = middle;
  }
  const auto found = entry(low);
  if (!found || address < found->start || address >= found->end) return std::nullopt;
  return found;
}

std::optional<GoPclntab::Function> GoPclntab::find(uint64_t address) const {
  const auto e = entry_of(address);
  if (!e) return std::nullopt;
  const std::string_view name = text_at(names_ + u32(e->record + 4));
  if (name.empty()) return std::nullopt;
  return Function{name, e->start, e->end};
}

// Calls `at_step(from, to, value)` for each stretch of code until it returns false. A table is pairs of
// LEB128 numbers: the value's change, zigzag-coded, and the stretch's length.
template <typename AtStep>
void GoPclntab::run(uint32_t table, uint64_t start, AtStep at_step) const {
  if (table == 0 || values_ + table >= data_.size()) return;
  ByteReader in(std::string_view(data_).substr(static_cast<size_t>(values_ + table)));
  uint64_t pc = start;
  uint32_t value = kNone;  // -1
  for (size_t i = 0; i < kMaxSteps; ++i) {
    const auto change = static_cast<uint32_t>(in.uleb());
    if ((change == 0 && i > 0) || in.failed()) return;
    value += change & 1 ? ~(change >> 1) : change >> 1;
    const uint64_t length = in.uleb() * quantum_;
    if (in.failed() || length > std::numeric_limits<uint32_t>::max()) return;
    if (!at_step(pc, pc + length, static_cast<int32_t>(value))) return;
    pc += length;
  }
}

std::optional<int32_t> GoPclntab::value_at(uint32_t table, const Entry& entry, uint64_t address) const {
  std::optional<int32_t> found;
  run(table, entry.start, [&](uint64_t, uint64_t to, int32_t value) {
    if (address >= to) return true;
    found = value;
    return false;
  });
  return found;
}

std::optional<GoPclntab::Line> GoPclntab::line_of(uint64_t address) const {
  const auto e = entry_of(address);
  if (!e) return std::nullopt;
  const auto file = value_at(u32(e->record + 20), *e, address);
  const auto line = value_at(u32(e->record + 24), *e, address);
  if (!file || !line || *file < 0 || *line <= 0) return std::nullopt;
  const uint64_t unit = uint64_t{u32(e->record + 32)} + static_cast<uint32_t>(*file);
  const uint32_t offset = u32(units_ + unit * 4);
  if (offset == kNone) return std::nullopt;
  const std::string_view name = text_at(files_ + offset);
  if (name.empty()) return std::nullopt;
  return Line{name, *line};
}

void GoPclntab::add_rows(std::vector<lt_row>& rows) const {
  constexpr uint64_t kEnd = std::numeric_limits<uint32_t>::max();
  std::vector<lt_row> go;
  const auto push = [&](uint64_t pc, uint8_t kind, int8_t bp, int16_t cfa) {
    if (pc >= kEnd || go.size() >= kMaxRows) return;
    const lt_row row{static_cast<uint32_t>(pc), kind, bp, cfa};
    if (!go.empty() && go.back().pc >= row.pc) go.pop_back();
    if (!go.empty() && go.back().kind == kind && go.back().bp == bp && go.back().cfa == cfa) return;
    go.push_back(row);
  };
  uint64_t end = text_;
  for (uint32_t i = 0; i < functions_; ++i) {
    const auto e = entry(i);
    if (!e || e->start < end || e->end > kEnd) continue;
    end = e->end;
    const auto flags = static_cast<uint8_t>(data_[e->record + 41]);
    const std::string_view name = text_at(names_ + u32(e->record + 4));
    if (name == "runtime.sigreturn__sigaction") {
      // A handler's return address is this function's first byte, and is looked up one byte before.
      push(e->start - 1, LT_ROW_SIGNAL, 0, 0);
      continue;
    }
    if ((flags & kTopFrame) && name != "runtime.sigtramp") {
      push(e->start, LT_ROW_END, 0, 0);
      continue;
    }
    if (flags & kWritesSp) {
      push(e->start, LT_ROW_STACK_SWITCH, 0, 0);
      continue;
    }
    push(e->start, LT_ROW_UNSUPPORTED, 0, 0);
    run(u32(e->record + 16), e->start, [&](uint64_t from, uint64_t, int32_t size) {
      // `size`: of the frame, without the return address. A function that has a frame saves rbp first
      // (Go 1.21; before, one instruction after it made room).
      if (from >= e->end) return false;
      if (size < 0 || size % 8 || size / 8 >= std::numeric_limits<int16_t>::max())
        push(from, LT_ROW_UNSUPPORTED, 0, 0);
      else
        push(from, LT_ROW_RSP, size ? -2 : 0, static_cast<int16_t>(size / 8 + 1));
      return true;
    });
  }
  if (go.empty() || rows.size() + go.size() >= kMaxRows) return;
  const lt_row behind = find_row(rows, end);
  push(end, behind.kind, behind.bp, behind.cfa);
  const auto below = [](const lt_row& row, uint64_t pc) { return row.pc < pc; };
  const auto from = std::lower_bound(rows.begin(), rows.end(), uint64_t{go.front().pc}, below);
  const auto to = std::lower_bound(from, rows.end(), end + 1, below);
  const auto at = rows.erase(from, to);
  rows.insert(at, go.begin(), go.end());
}

}  // namespace looptrace
