// SPDX-License-Identifier: Apache-2.0
#include "stacks/code_rows.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <unordered_map>
#include <utility>

#include "stacks/eh_frame.h"
#include "stacks/elf_file.h"
#include "stacks/raw_symbols.h"

namespace looptrace {
namespace {

constexpr uint64_t kMaxCode = 4u << 20;  // musl's is 0.6 MB
constexpr int kRsp = 4, kRbp = 5;

// What one instruction is, as far as the stack is concerned.
struct Instruction {
  uint8_t size = 0;
  uint16_t opcode = 0;  // 0x0fXX of the two-byte map, 0x38XX and 0x3aXX of the others
  bool wide = false;    // REX.W
  bool modrm = false;
  int mod = 0, reg = 0, rm = 0;  // with their REX bits
  bool rip_relative = false;
  bool plain_rsp_base = false;  // the memory operand is [rsp + displacement]
  int64_t displacement = 0, immediate = 0;

  bool names_register() const { return mod == 3; }
};

class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : bytes_(bytes) {}

  // Nothing for what compilers do not emit in such code (VEX, EVEX, far calls), and past the end.
  std::optional<Instruction> at(size_t offset) {
    at_ = offset;
    failed_ = false;
    Instruction in;
    bool small = false;  // operand size prefix
    int rex = 0;
    uint8_t byte = next();
    for (int i = 0; i < 4 && is_prefix(byte); ++i) {
      small |= byte == 0x66;
      byte = next();
    }
    if ((byte & 0xf0) == 0x40) {
      rex = byte & 15;
      byte = next();
    }
    in.wide = rex & 8;
    in.opcode = byte;
    if (byte == 0x0f) {
      byte = next();
      in.opcode = static_cast<uint16_t>(0x0f00 | byte);
      if (byte == 0x38 || byte == 0x3a) in.opcode = static_cast<uint16_t>(byte << 8 | next());
    }
    if (is_unknown(in.opcode)) return std::nullopt;
    if (has_modrm(in.opcode)) modrm(in, rex);
    if (!in.modrm) in.rm = (in.opcode & 7) | (rex & 1) << 3;  // of push, pop and their like
    in.immediate = number(immediate_size(in, small));
    if (failed_ || at_ - offset > 15) return std::nullopt;
    in.size = static_cast<uint8_t>(at_ - offset);
    return in;
  }

 private:
  uint8_t next() {
    if (at_ < bytes_.size()) return static_cast<uint8_t>(bytes_[at_++]);
    failed_ = true;
    return 0;
  }

  int64_t number(int size) {
    uint64_t value = 0;
    for (int i = 0; i < size; ++i) value |= uint64_t{next()} << (8 * i);
    if (size == 0 || size == 8) return static_cast<int64_t>(value);
    const int unused = 64 - 8 * size;
    return static_cast<int64_t>(value << unused) >> unused;
  }

  void modrm(Instruction& in, int rex) {
    const uint8_t byte = next();
    in.modrm = true;
    in.mod = byte >> 6;
    in.reg = ((byte >> 3) & 7) | (rex & 4) << 1;
    in.rm = (byte & 7) | (rex & 1) << 3;
    if (in.mod == 3) return;
    int base = byte & 7;
    in.rip_relative = in.mod == 0 && base == 5;
    bool index = false;
    if (base == 4) {
      const uint8_t sib = next();
      base = sib & 7;
      index = (sib & 0x38) != 0x20 || (rex & 2);
      in.plain_rsp_base = base == kRsp && !(rex & 1) && !index;
    }
    int size = in.mod == 1 ? 1 : in.mod == 2 ? 4 : 0;
    if (in.mod == 0 && base == 5) size = 4;  // from rip, or from nothing
    in.displacement = number(size);
  }

  static bool is_prefix(uint8_t byte) {
    return byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 || byte == 0x64 ||
           byte == 0x65 || byte == 0x2e || byte == 0x3e;
  }

  static bool is_unknown(uint16_t opcode) {
    switch (opcode) {
      case 0x06:
      case 0x07:
      case 0x0e:
      case 0x16:
      case 0x17:
      case 0x1e:
      case 0x1f:
      case 0x27:
      case 0x2f:
      case 0x37:
      case 0x3f:
      case 0x60:
      case 0x61:
      case 0x62:
      case 0x82:
      case 0x9a:
      case 0xc4:
      case 0xc5:
      case 0xc8:
      case 0xca:
      case 0xcb:
      case 0xcc:
      case 0xce:
      case 0xcf:
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xea:
        return true;
    }
    return false;
  }

  static bool has_modrm(uint16_t opcode) {
    const int low = opcode & 0xff;
    if (opcode >= 0x3800) return true;
    if (opcode >= 0x0f00)
      return !(low == 0x05 || low == 0x0b || low == 0x31 || low == 0x77 || (low & 0xf0) == 0x80 ||
               low == 0xa2 || low == 0xa0 || low == 0xa1 || low == 0xa8 || low == 0xa9 ||
               (low >= 0xc8 && low <= 0xcf));
    if (low < 0x40) return (low & 7) < 4;
    return low == 0x63 || low == 0x69 || low == 0x6b || (low >= 0x80 && low <= 0x8f) || low == 0xc0 ||
           low == 0xc1 || low == 0xc6 || low == 0xc7 || (low >= 0xd0 && low <= 0xd3) ||
           (low >= 0xd8 && low <= 0xdf) || low == 0xf6 || low == 0xf7 || low == 0xfe || low == 0xff;
  }

  static int immediate_size(const Instruction& in, bool small) {
    const int low = in.opcode & 0xff, full = small ? 2 : 4;
    if (in.opcode >= 0x3a00) return 1;
    if (in.opcode >= 0x3800) return 0;
    if (in.opcode >= 0x0f00) {
      if ((low & 0xf0) == 0x80) return 4;
      return (low >= 0x70 && low <= 0x73) || low == 0xa4 || low == 0xac || low == 0xba || low == 0xc2 ||
             (low >= 0xc4 && low <= 0xc6);
    }
    if (low < 0x40) return (low & 7) == 4 ? 1 : (low & 7) == 5 ? full : 0;
    if (low >= 0xb8 && low <= 0xbf) return in.wide ? 8 : full;
    switch (low) {
      case 0x68:
      case 0x69:
      case 0x81:
      case 0xa9:
      case 0xc7:
        return full;
      case 0xe8:
      case 0xe9:
        return 4;
      case 0x6a:
      case 0x6b:
      case 0x80:
      case 0x83:
      case 0xa8:
      case 0xc0:
      case 0xc1:
      case 0xc6:
      case 0xcd:
      case 0xeb:
        return 1;
      case 0xc2:
        return 2;
      case 0xa0:
      case 0xa1:
      case 0xa2:
      case 0xa3:
        return 8;
      case 0xf6:
        return (in.reg & 7) < 2 ? 1 : 0;
      case 0xf7:
        return (in.reg & 7) < 2 ? full : 0;
    }
    return (low >= 0x70 && low <= 0x7f) || (low >= 0xb0 && low <= 0xb7) || (low >= 0xe0 && low <= 0xe7) ? 1
                                                                                                        : 0;
  }

  std::string_view bytes_;
  size_t at_ = 0;
  bool failed_ = false;
};

// What is known before an instruction. Words of 8 bytes below the CFA.
struct State {
  int depth = 1;           // of rsp; 0 once the return address is gone: the stack ends here
  int saved = 0;           // of where the caller's rbp was pushed; 0 = it is still in rbp
  int frame = 0;           // of rbp, where that is a frame pointer; else 0
  bool lost = false;       // rsp is not known
  bool outermost = false;  // what the kernel starts: nothing called it
  bool operator==(const State&) const = default;

  void lose() {
    lost = true;
    depth = 0;
  }

  // What holds on both ways to one place.
  State with(const State& other) const {
    State both = *this;
    if (frame != other.frame || saved != other.saved) both.frame = 0;
    if (saved != other.saved || depth != other.depth || lost || other.lost) both.lose();
    if (saved != other.saved) both.saved = 0;
    return both;
  }
};

class Walk {
 public:
  explicit Walk(const CodeInput& input)
      : input_(input),
        decoder_(input.bytes),
        sizes_(input.bytes.size()),
        index_(input.bytes.size()),
        entry_(input.bytes.size()) {}

  std::vector<lt_row> run() {
    for (const uint64_t entry : input_.entries) {
      if (is_here(entry)) entry_[entry - input_.address] = true;
    }
    if (input_.start) {
      State state;
      state.outermost = true;
      waiting_.push_back({*input_.start, state, *input_.start});
    }
    for (const uint64_t entry : input_.entries) waiting_.push_back({entry, {}, entry});
    while (!waiting_.empty()) {
      const Place place = waiting_.back();
      waiting_.pop_back();
      follow(place);
    }
    return rows();
  }

 private:
  bool is_here(uint64_t address) const {
    return address >= input_.address && address - input_.address < input_.bytes.size();
  }

  // Somewhere to go on from, in the function that begins at `function`.
  struct Place {
    uint64_t address;
    State state;
    uint64_t function;
  };
  struct Function {
    bool entered = false, returns = false;
    std::vector<Place> behind_calls;  // to be followed once it is known to return
    std::vector<uint64_t> jump_here;  // functions that return if it does
  };

  void return_from(uint64_t function) {
    Function& f = functions_[function];
    if (std::exchange(f.returns, true)) return;
    for (const Place& place : std::exchange(f.behind_calls, {})) waiting_.push_back(place);
    for (const uint64_t other : std::exchange(f.jump_here, {})) return_from(other);
  }

  void call(uint64_t target, const Place& behind) {
    if (!is_here(target)) {
      waiting_.push_back(behind);
      return;
    }
    Function& f = functions_[target];
    if (f.returns)
      waiting_.push_back(behind);
    else
      f.behind_calls.push_back(behind);
    if (!std::exchange(f.entered, true)) waiting_.push_back({target, {}, target});
  }

  void follow(Place place) {
    auto& [address, state, function] = place;
    functions_[function].entered = true;
    for (bool first = true;; first = false) {
      if (!is_here(address)) return return_from(function);
      const size_t offset = address - input_.address;
      if (entry_[offset] && !first && state != State{}) return;
      const auto in = decoder_.at(offset);
      if (!in) return return_from(function);
      if (sizes_[offset]) {
        auto& [known, owner] = known_[index_[offset]];
        if (owner != function) {
          if (functions_[owner].returns)
            return_from(function);
          else
            functions_[owner].jump_here.push_back(function);
        }
        const State both = known.with(state);
        if (both == known) return;
        known = state = both;
      } else {
        sizes_[offset] = in->size;
        index_[offset] = static_cast<uint32_t>(known_.size());
        known_.emplace_back(state, function);
      }
      address += in->size;
      const uint64_t target = address + static_cast<uint64_t>(in->immediate);
      const int op = in->opcode;
      if (op == 0xe8) {
        // It may be one of those that do not return: what is behind it belongs to another function then.
        call(target, place);
        return;
      }
      if (op == 0xe9 || op == 0xeb) {
        waiting_.push_back({target, state, function});
        return;
      }
      if ((op >= 0x70 && op <= 0x7f) || (op >= 0x0f80 && op <= 0x0f8f) || (op >= 0xe0 && op <= 0xe3))
        waiting_.push_back({target, state, function});
      if (op == 0xc3 || op == 0xc2 || (op == 0xff && ((in->reg & 7) == 4 || (in->reg & 7) == 5)))
        return return_from(function);          // an indirect jump may lead anywhere
      if (op == 0xf4 || op == 0x0f0b) return;  // hlt, ud2
      // The address of a function that is called by it.
      if (const uint64_t taken = address + static_cast<uint64_t>(in->displacement);
          op == 0x8d && in->rip_relative && is_here(taken) && !std::exchange(functions_[taken].entered, true))
        waiting_.push_back({taken, {}, taken});
      apply(*in, state);
    }
  }

  static void move(State& state, int64_t bytes_up) {
    const int64_t depth = state.depth - bytes_up / 8;
    if (state.lost || bytes_up % 8 || depth < 0 || depth > std::numeric_limits<int16_t>::max())
      state.lose();
    else
      state.depth = static_cast<int>(depth);
  }

  static void push(State& state, bool rbp) {
    move(state, -8);
    if (rbp && !state.saved && !state.lost) state.saved = state.depth;
  }

  static void pop(State& state, int into) {
    if (into == kRbp) {
      if (state.depth == state.saved) state.saved = 0;
      state.frame = 0;
    }
    move(state, 8);
    if (into == kRsp) state.lose();
  }

  // rsp is set to rbp.
  static void to_frame(State& state) {
    if (!state.frame) return state.lose();
    state.lost = false;
    state.depth = state.frame;
  }

  static void apply(const Instruction& in, State& state) {
    const int op = in.opcode, kind = in.reg & 7;
    if (op >= 0x50 && op <= 0x57) return push(state, in.rm == kRbp);
    if (op >= 0x58 && op <= 0x5f) return pop(state, in.rm);
    if (op == 0x68 || op == 0x6a || op == 0x9c || (op == 0xff && kind == 6)) return push(state, false);
    if (op == 0x9d || op == 0x8f) return pop(state, in.modrm && in.names_register() ? in.rm : -1);
    if (op == 0xc9) {  // leave
      to_frame(state);
      return pop(state, kRbp);
    }
    if ((op == 0x83 || op == 0x81) && in.names_register() && in.rm == kRsp && in.wide) {
      if (kind == 0 || kind == 5) return move(state, kind ? -in.immediate : in.immediate);  // add, sub
      if (kind != 7) state.lose();                                                          // cmp
      return;
    }
    if (op == 0x8d && in.reg == kRsp) return in.plain_rsp_base ? move(state, in.displacement) : state.lose();
    const bool copies = (op == 0x89 || op == 0x8b) && in.names_register() && in.wide;
    const int from = op == 0x89 ? in.reg : in.rm, to = op == 0x89 ? in.rm : in.reg;
    if (copies && from == kRsp && to == kRbp) {
      state.frame = state.lost ? 0 : state.depth;
    } else if (copies && from == kRbp && to == kRsp) {
      to_frame(state);
    } else if (const int written = destination(in); written == kRsp) {
      state.lose();
    } else if (written == kRbp) {
      state.frame = 0;
    }
  }

  // The general register that an instruction writes to, of those that may name rsp or rbp; else -1.
  static int destination(const Instruction& in) {
    const int op = in.opcode;
    if (op >= 0xb8 && op <= 0xbf) return in.rm;
    if (op >= 0x90 && op <= 0x97) return in.rm;
    if (!in.modrm || (op >= 0xd8 && op <= 0xdf)) return -1;
    const bool arithmetic = op < 0x40 && (op & 0xf8) != 0x38;
    if (arithmetic || op == 0x88 || op == 0x89 || op == 0x8a || op == 0x8b) {
      if (op & 2) return in.reg;
      return in.names_register() ? in.rm : -1;
    }
    if (op == 0x63 || op == 0x69 || op == 0x6b || op == 0x8d) return in.reg;
    if ((op >= 0x0f40 && op <= 0x0f4f) || op == 0x0fb6 || op == 0x0fb7 || op == 0x0fbe || op == 0x0fbf ||
        op == 0x0faf || op == 0x0fbc || op == 0x0fbd)
      return in.reg;
    if (op == 0x87 || op == 0x86) return in.names_register() ? (in.rm == kRsp ? in.rm : in.reg) : in.reg;
    const bool one = op == 0x80 || op == 0x81 || op == 0x83 || op == 0xc0 || op == 0xc1 || op == 0xc6 ||
                     op == 0xc7 || (op >= 0xd0 && op <= 0xd3) || op == 0xf6 || op == 0xf7 || op == 0xfe ||
                     op == 0xff || op == 0x8f || op == 0x0f7e;
    return one && in.names_register() ? in.rm : -1;
  }

  static lt_row row_of(const State& s) {
    constexpr int kFarthest = 127;  // what a row can say of rbp
    if (s.outermost || (!s.lost && s.depth == 0)) return {0, LT_ROW_END, 0, 0};
    if (s.saved > kFarthest || (s.lost && !s.frame)) return {0, LT_ROW_UNSUPPORTED, 0, 0};
    const auto bp = static_cast<__s8>(-s.saved);
    return s.lost ? lt_row{0, LT_ROW_RBP, bp, static_cast<__s16>(s.frame)}
                  : lt_row{0, LT_ROW_RSP, bp, static_cast<__s16>(s.depth)};
  }

  std::vector<lt_row> rows() const {
    std::vector<lt_row> rows;
    const auto push = [&](size_t offset, lt_row row) {
      row.pc = static_cast<uint32_t>(input_.address + offset);
      if (!rows.empty() && rows.back().pc == row.pc) rows.pop_back();
      if (!rows.empty() && rows.back().kind == row.kind && rows.back().bp == row.bp &&
          rows.back().cfa == row.cfa)
        return;
      rows.push_back(row);
    };
    for (size_t offset = 0; offset < sizes_.size();) {
      if (!sizes_[offset]) {
        ++offset;
        continue;
      }
      push(offset, row_of(known_[index_[offset]].first));
      offset += sizes_[offset];
      push(offset, {0, LT_ROW_GAP, 0, 0});
    }
    return rows;
  }

  const CodeInput& input_;
  Decoder decoder_;
  std::vector<uint8_t> sizes_;   // of the instruction that begins there; 0 = none was reached
  std::vector<uint32_t> index_;  // of its state
  std::vector<bool> entry_;
  std::vector<std::pair<State, uint64_t>> known_;  // before an instruction, and of which function it is
  std::unordered_map<uint64_t, Function> functions_;
  std::vector<Place> waiting_;
};

}  // namespace

std::vector<lt_row> rows_from_code(const CodeInput& input) { return Walk(input).run(); }

namespace {

bool is_gap(const std::vector<lt_row>& rows, uint64_t pc) { return find_row(rows, pc).kind == LT_ROW_GAP; }

// Bytes of code, and how many of them a table covers.
std::pair<uint64_t, uint64_t> coverage(const ElfFile& file, const std::vector<lt_row>& rows) {
  uint64_t code = 0, covered = 0;
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X)) code += segment.p_filesz;
  }
  for (size_t i = 0; i + 1 < rows.size(); ++i) {
    if (rows[i].kind != LT_ROW_GAP) covered += rows[i + 1].pc - rows[i].pc;
  }
  return {code, covered};
}

// Functions without a table.
std::vector<uint64_t> uncovered_functions(const ElfFile& file, const std::vector<lt_row>& rows) {
  std::vector<uint64_t> entries;
  for (const uint32_t type : {SHT_SYMTAB, SHT_DYNSYM}) {
    const auto symbols = load_symbols(file, type);
    for (size_t i = 1; symbols && i < symbols->size(); ++i) {
      const Elf64_Sym symbol = symbols->at(i);
      if (symbol.st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbol.st_info) == STT_FUNC &&
          is_gap(rows, symbol.st_value))
        entries.push_back(symbol.st_value);
    }
    if (!entries.empty()) break;
  }
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  return entries;
}

// `rows`, and in their gaps those of `more`.
std::vector<lt_row> filled(const std::vector<lt_row>& rows, const std::vector<lt_row>& more) {
  std::vector<lt_row> all;
  all.reserve(rows.size() + more.size());
  size_t i = 0, k = 0;
  lt_row own{0, LT_ROW_GAP, 0, 0}, other = own;
  while (i < rows.size() || k < more.size()) {
    const uint64_t next = std::min<uint64_t>(i < rows.size() ? rows[i].pc : UINT64_MAX,
                                             k < more.size() ? more[k].pc : UINT64_MAX);
    if (i < rows.size() && rows[i].pc == next) own = rows[i++];
    if (k < more.size() && more[k].pc == next) other = more[k++];
    lt_row row = own.kind == LT_ROW_GAP ? other : own;
    row.pc = static_cast<uint32_t>(next);
    if (!all.empty() && all.back().kind == row.kind && all.back().bp == row.bp && all.back().cfa == row.cfa)
      continue;
    all.push_back(row);
  }
  return all;
}

}  // namespace

void add_code_rows(const ElfFile& file, bool program, std::span<const uint64_t> functions,
                   std::vector<lt_row>& rows) {
  if (file.header().e_machine != EM_X86_64) return;
  const auto& segments = file.segments();
  const bool linked = program && std::none_of(segments.begin(), segments.end(),
                                              [](const Elf64_Phdr& s) { return s.p_type == PT_INTERP; });
  const auto [code, covered] = coverage(file, rows);
  CodeInput input;
  if (linked || covered < code / 2) input.entries = uncovered_functions(file, rows);
  const uint64_t start = file.header().e_entry;
  if ((program || !input.entries.empty()) && start && is_gap(rows, start)) input.start = start;
  // In a stripped program nothing names the C library's functions. Those of the program are in its tables,
  // and most are called by nobody by name, as main() is not. (A function's cold part begins in mid-frame.)
  if (linked && input.start && input.entries.empty()) {
    std::copy_if(functions.begin(), functions.end(), std::back_inserter(input.entries), [&](uint64_t low) {
      const lt_row row = find_row(rows, low);
      return row.kind == LT_ROW_RSP && row.cfa == 1 && row.bp == 0;
    });
  }
  if (input.entries.empty() && !input.start) return;

  // From the first of them to the last, and what may follow that one.
  constexpr uint64_t kTail = 16u << 10;
  uint64_t first = input.start.value_or(UINT64_MAX), end = input.start.value_or(0) + kTail;
  if (!input.entries.empty()) {
    first = std::min(first, input.entries.front());
    end = std::max(end, input.entries.back() + kTail);
  }
  // Where all is in one file, its C library's functions are found by who calls them, named or not.
  for (const Elf64_Phdr& s : segments) {
    if (!linked || !input.start || s.p_type != PT_LOAD || !(s.p_flags & PF_X) || s.p_filesz > kMaxCode)
      continue;
    if (start < s.p_vaddr || start - s.p_vaddr >= s.p_filesz) continue;
    first = s.p_vaddr;
    end = s.p_vaddr + s.p_filesz;
  }
  if (end - first > kMaxCode + kTail || end > std::numeric_limits<uint32_t>::max()) return;
  const std::string bytes = file.load_from_address(first, end - first);
  input.bytes = bytes;
  input.address = first;
  rows = filled(rows, rows_from_code(input));
}

}  // namespace looptrace
