// SPDX-License-Identifier: Apache-2.0
#include "stacks/eh_frame.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <unordered_map>

#include "stacks/byte_reader.h"
#include "stacks/elf_file.h"

namespace looptrace {
namespace {

// Deeper nesting than compilers emit (they use one or two levels); hostile input must not buy memory.
constexpr size_t kMaxRemembered = 64;
constexpr size_t kMaxFdes = 4u << 20;
constexpr uint64_t kMaxEhFrame = 128u << 20;

// DWARF register numbers of the x86-64 psABI.
constexpr uint64_t kRbp = 6, kRsp = 7, kRip = 16, kGeneralRegisters = 16;
constexpr uint64_t kNoRegister = ~uint64_t{0};

// Pointer encodings, DW_EH_PE_*.
constexpr uint8_t kPeAbsolute = 0x00, kPeUleb = 0x01, kPeU2 = 0x02, kPeU4 = 0x03, kPeU8 = 0x04,
                  kPeSleb = 0x09, kPeS2 = 0x0a, kPeS4 = 0x0b, kPeS8 = 0x0c, kPeRelative = 0x10,
                  kPeDataRelative = 0x30, kPeApplicationMask = 0x70, kPeIndirect = 0x80, kPeOmit = 0xff;

// DWARF expression operators that occur in known CFA expressions.
constexpr uint8_t kOpDeref = 0x06, kOpMul = 0x1e, kOpPlus = 0x22, kOpPlusUconst = 0x23, kOpLit8 = 0x38,
                  kOpBreg0 = 0x70, kOpBreg6 = 0x76, kOpBreg7 = 0x77, kOpBreg15 = 0x7f;

// A pointer at `position` (its own address). Nothing for what an FDE or header cannot sensibly have.
std::optional<uint64_t> encoded_pointer(ByteReader& in, uint8_t encoding, uint64_t position,
                                        uint64_t data_base = 0) {
  if (encoding == kPeOmit || (encoding & kPeIndirect)) return std::nullopt;
  uint64_t value = 0;
  switch (encoding & 0x0f) {
    case kPeAbsolute:
    case kPeU8:
    case kPeS8:
      value = in.get<uint64_t>();
      break;
    case kPeUleb:
      value = in.uleb();
      break;
    case kPeSleb:
      value = static_cast<uint64_t>(in.sleb());
      break;
    case kPeU2:
      value = in.get<uint16_t>();
      break;
    case kPeS2:
      value = static_cast<uint64_t>(int64_t{in.get<int16_t>()});
      break;
    case kPeU4:
      value = in.get<uint32_t>();
      break;
    case kPeS4:
      value = static_cast<uint64_t>(int64_t{in.get<int32_t>()});
      break;
    default:
      return std::nullopt;
  }
  if (in.failed()) return std::nullopt;
  switch (encoding & kPeApplicationMask) {
    case 0:
      return value;
    case kPeRelative:
      return value + position;
    case kPeDataRelative:
      return data_base ? std::optional(value + data_base) : std::nullopt;
    default:
      return std::nullopt;
  }
}

// How the CFA is computed at one point.
enum class CfaRule : uint8_t {
  none,
  reg,      // cfa_reg + cfa_offset
  plt,      // the linker's PLT
  deref,    // *(cfa_reg + cfa_offset) + cfa_add
  indexed,  // *(rsp + cfa_offset + 8 * cfa_reg) + 8
};

// Where the caller's rbp is.
enum class BpRule : uint8_t { same, at_cfa, at_rbp, at_rsp, unknown };

// The part of the CFI machine's state that rows depend on.
struct CfiState {
  CfaRule cfa = CfaRule::none;
  BpRule bp = BpRule::same;
  bool ra_undefined = false;
  bool ra_known = false;          // at CFA - 8
  bool sp_is_cfa = true;          // the caller's rsp is the CFA
  uint64_t ra_reg = kNoRegister;  // it is in this register
  uint64_t cfa_reg = kRsp;
  int64_t cfa_offset = 0;
  uint64_t cfa_add = 0;
  int64_t bp_offset = 0;  // from what BpRule says
};

struct Cie {
  bool valid = false;
  bool signal = false;
  bool has_augmentation = false;
  uint8_t pointer_encoding = kPeAbsolute;
  uint64_t code_align = 1;
  int64_t data_align = 1;
  CfiState initial;  // after the CIE's own instructions, which are run once and not once per FDE
};

struct Fde {
  uint64_t low, high;
  std::string_view instructions;
  uint64_t instructions_address;
  uint32_t cie;
};

int64_t wrapping_multiply(uint64_t a, int64_t b) {
  return static_cast<int64_t>(a * static_cast<uint64_t>(b));
}

// A row counts the CFA's offset in words of 8 bytes.
bool fits_row(int64_t offset) {
  return offset % 8 == 0 && offset / 8 >= std::numeric_limits<int16_t>::min() &&
         offset / 8 <= std::numeric_limits<int16_t>::max();
}

// Large frames: up to 32 MiB, in the 22 bits of LT_ROW_FAR.
bool is_far(int64_t offset) { return offset % 8 == 0 && offset >= 1 << 18 && offset < 1 << 25; }

// The save slot of rbp in words from the CFA, or LT_ROW_BP_HERE; nothing if a row cannot say it. 0 means
// "unchanged".
std::optional<int8_t> bp_slot(const CfiState& state) {
  uint64_t from_cfa = static_cast<uint64_t>(state.bp_offset);
  const auto cfa_offset = static_cast<uint64_t>(state.cfa_offset);
  switch (state.bp) {
    case BpRule::same:
      return int8_t{0};
    case BpRule::at_cfa:
      break;
    case BpRule::at_rbp:
      if (state.bp_offset == 0 && !(state.cfa == CfaRule::reg && state.cfa_reg == kRbp)) {
        // At gcc's `ret` out of a realigned frame rbp has been restored; the rule was left behind.
        const bool only_return_address =
            state.cfa == CfaRule::reg && state.cfa_reg == kRsp && state.cfa_offset == 8;
        return only_return_address ? int8_t{0} : int8_t{LT_ROW_BP_HERE};
      }
      if (state.cfa != CfaRule::reg || state.cfa_reg != kRbp) return std::nullopt;
      from_cfa -= cfa_offset;
      break;
    case BpRule::at_rsp:
      if (state.cfa != CfaRule::reg || state.cfa_reg != kRsp) return std::nullopt;
      from_cfa -= cfa_offset;
      break;
    case BpRule::unknown:
      return std::nullopt;
  }
  const auto offset = static_cast<int64_t>(from_cfa);
  if (offset % 8 != 0 || offset == 0 || offset / 8 <= LT_ROW_BP_HERE || offset / 8 > 127) return std::nullopt;
  return static_cast<int8_t>(offset / 8);
}

lt_row make_row(uint64_t pc, const CfiState& state, bool signal) {
  const lt_row unsupported{static_cast<uint32_t>(pc), LT_ROW_UNSUPPORTED, 0, 0};
  lt_row row = unsupported;
  if (signal) {
    row.kind = LT_ROW_SIGNAL;
    return row;
  }
  if (state.ra_undefined) {
    row.kind = LT_ROW_END;
    return row;
  }
  const std::optional<int8_t> slot = bp_slot(state);
  if (!slot || !state.sp_is_cfa) return unsupported;
  row.bp = *slot;
  if (state.cfa == CfaRule::reg && state.cfa_reg == kRsp && state.ra_known && is_far(state.cfa_offset)) {
    row.kind = static_cast<uint8_t>(LT_ROW_FAR + (state.cfa_offset >> 19));
    row.cfa = static_cast<int16_t>(state.cfa_offset >> 3);
    return row;
  }
  if (!fits_row(state.cfa_offset)) return unsupported;
  row.cfa = static_cast<int16_t>(state.cfa_offset / 8);
  if (state.ra_reg != kNoRegister) {
    if (state.cfa != CfaRule::reg || state.cfa_reg != kRsp) return unsupported;
    row.kind = static_cast<uint8_t>(LT_ROW_RA_REG + state.ra_reg);
    return row;
  }
  if (!state.ra_known) return unsupported;
  switch (state.cfa) {
    case CfaRule::reg:
      if (state.cfa_reg >= kGeneralRegisters) return unsupported;
      row.kind = static_cast<uint8_t>(LT_ROW_REG + state.cfa_reg);
      if (state.cfa_reg == kRsp) row.kind = LT_ROW_RSP;
      if (state.cfa_reg == kRbp) row.kind = LT_ROW_RBP;
      break;
    case CfaRule::plt:
      row.kind = LT_ROW_PLT;
      row.cfa = 0;
      break;
    case CfaRule::deref:
      if (state.cfa_reg == kRbp && state.cfa_add == 0 && *slot == LT_ROW_BP_HERE) {
        row.kind = LT_ROW_DEREF_RBP;  // what realigned frames (gcc's DRAP) say
        row.bp = 0;
      } else if (state.cfa_reg == kRsp && state.cfa_add == 8) {
        row.kind = LT_ROW_DEREF_RSP;
      } else {
        if (row.cfa < 0 || row.cfa > 255 || state.cfa_add % 8 != 0 || state.cfa_add / 8 > 127)
          return unsupported;
        row.kind = state.cfa_reg == kRsp ? LT_ROW_DEREF_RSP_ADD : LT_ROW_DEREF_RBP_ADD;
        row.cfa = static_cast<int16_t>(row.cfa | static_cast<int>(state.cfa_add / 8) << 8);
      }
      break;
    case CfaRule::indexed:
      row.kind = static_cast<uint8_t>(LT_ROW_INDEXED + state.cfa_reg);
      break;
    case CfaRule::none:
      return unsupported;
  }
  return row;
}

void set_cfa_expression(std::string_view expression, CfiState& state) {
  // What ld writes for .plt: rsp + 8 + ((rip & 15) >= 11) * 8.
  static constexpr std::string_view kPlt("\x77\x08\x80\x00\x3f\x1a\x3b\x2a\x33\x24\x22", 11);
  state.cfa = CfaRule::none;
  state.cfa_offset = 0;
  if (expression == kPlt) {
    state.cfa = CfaRule::plt;
    return;
  }
  // OpenSSL's assembler keeps the caller's rsp in memory: at a fixed place, or above an array of n words.
  ByteReader in(expression);
  const auto base = in.get<uint8_t>();
  const int64_t offset = in.sleb();
  auto op = in.get<uint8_t>();
  auto rule = CfaRule::deref;
  uint64_t reg = base - kOpBreg0;
  if (op >= kOpBreg0 && op <= kOpBreg15) {
    if (base != kOpBreg7 || in.sleb() != 0 || in.get<uint8_t>() != kOpLit8 || in.get<uint8_t>() != kOpMul ||
        in.get<uint8_t>() != kOpPlus)
      return;
    rule = CfaRule::indexed;
    reg = op - kOpBreg0;
    op = in.get<uint8_t>();
  } else if (base != kOpBreg6 && base != kOpBreg7) {
    return;
  }
  if (op != kOpDeref || in.failed()) return;
  uint64_t add = 0;
  if (!in.done()) {
    if (in.get<uint8_t>() != kOpPlusUconst) return;
    add = in.uleb();
    if (!in.done() || in.failed()) return;
  }
  if (rule == CfaRule::indexed && (add != 8 || reg == kRsp || reg == kRbp)) return;
  state.cfa = rule;
  state.cfa_reg = reg;
  state.cfa_offset = offset;
  state.cfa_add = add;
}

void set_bp_expression(std::string_view expression, CfiState& state) {
  ByteReader in(expression);
  const auto op = in.get<uint8_t>();
  const int64_t offset = in.sleb();
  if (!in.failed() && in.done() && (op == kOpBreg6 || op == kOpBreg7)) {
    state.bp = op == kOpBreg6 ? BpRule::at_rbp : BpRule::at_rsp;
    state.bp_offset = offset;
  } else {
    state.bp = BpRule::unknown;
  }
}

// A register was saved at CFA + offset.
void set_offset_rule(uint64_t reg, int64_t offset, CfiState& state) {
  if (reg == kRbp) {
    state.bp = BpRule::at_cfa;
    state.bp_offset = offset;
  } else if (reg == kRip) {
    state.ra_undefined = false;
    state.ra_known = offset == -8;
    state.ra_reg = kNoRegister;
  } else if (reg == kRsp) {
    state.sp_is_cfa = false;
  }
}

// A register got a rule that rows cannot express.
void set_unknown_rule(uint64_t reg, CfiState& state) {
  if (reg == kRbp) state.bp = BpRule::unknown;
  if (reg == kRip) {
    state.ra_known = state.ra_undefined = false;
    state.ra_reg = kNoRegister;
  }
  if (reg == kRsp) state.sp_is_cfa = false;
}

void restore_rule(uint64_t reg, const CfiState& initial, CfiState& state) {
  if (reg == kRbp) {
    state.bp = initial.bp;
    state.bp_offset = initial.bp_offset;
  } else if (reg == kRip) {
    state.ra_known = initial.ra_known;
    state.ra_undefined = initial.ra_undefined;
    state.ra_reg = initial.ra_reg;
  } else if (reg == kRsp) {
    state.sp_is_cfa = initial.sp_is_cfa;
  }
}

// Runs call frame instructions. `at_row(pc, state)` is called for each stretch of code with its state and
// returns false to stop. Returns false on an instruction that cannot be understood.
template <typename AtRow>
bool run_cfi(std::string_view instructions, uint64_t address, const Cie& cie, uint64_t pc, CfiState& state,
             AtRow at_row) {
  ByteReader in(instructions);
  CfiState remembered[kMaxRemembered];
  size_t depth = 0;
  const auto advance = [&](uint64_t to) {
    const bool more = at_row(pc, state);
    pc = to;
    return more;
  };
  while (!in.done()) {
    const auto op = in.get<uint8_t>();
    const uint64_t low = op & 0x3f;
    switch (op >> 6) {
      case 1:  // DW_CFA_advance_loc
        if (!advance(pc + low * cie.code_align)) return true;
        continue;
      case 2:  // DW_CFA_offset
        set_offset_rule(low, wrapping_multiply(in.uleb(), cie.data_align), state);
        continue;
      case 3:  // DW_CFA_restore
        restore_rule(low, cie.initial, state);
        continue;
      default:
        break;
    }
    switch (op) {
      case 0x00:  // DW_CFA_nop
        break;
      case 0x01: {  // DW_CFA_set_loc
        const auto to = encoded_pointer(in, cie.pointer_encoding, address + in.offset());
        if (!to) return false;
        if (!advance(*to)) return true;
        break;
      }
      case 0x02:  // DW_CFA_advance_loc1, 2, 4
        if (!advance(pc + in.get<uint8_t>() * cie.code_align)) return true;
        break;
      case 0x03:
        if (!advance(pc + in.get<uint16_t>() * cie.code_align)) return true;
        break;
      case 0x04:
        if (!advance(pc + in.get<uint32_t>() * cie.code_align)) return true;
        break;
      case 0x05: {  // DW_CFA_offset_extended
        const uint64_t reg = in.uleb();
        set_offset_rule(reg, wrapping_multiply(in.uleb(), cie.data_align), state);
        break;
      }
      case 0x06:  // DW_CFA_restore_extended
        restore_rule(in.uleb(), cie.initial, state);
        break;
      case 0x07: {  // DW_CFA_undefined
        const uint64_t reg = in.uleb();
        if (reg == kRip) {
          state.ra_undefined = true;
          state.ra_known = false;
          state.ra_reg = kNoRegister;
        } else if (reg == kRbp) {
          state.bp = BpRule::same;  // the caller does not use it
        }
        break;
      }
      case 0x08: {  // DW_CFA_same_value
        const uint64_t reg = in.uleb();
        if (reg == kRbp)
          state.bp = BpRule::same;
        else
          set_unknown_rule(reg, state);
        break;
      }
      case 0x09: {  // DW_CFA_register
        const uint64_t reg = in.uleb();
        const uint64_t from = in.uleb();
        if (reg == kRbp && from == kRbp)
          state.bp = BpRule::same;
        else
          set_unknown_rule(reg, state);
        if (reg == kRip && from < kGeneralRegisters && from != kRsp && from != kRbp) state.ra_reg = from;
        break;
      }
      case 0x0a:  // DW_CFA_remember_state
        if (depth == kMaxRemembered) return false;
        remembered[depth++] = state;
        break;
      case 0x0b:  // DW_CFA_restore_state
        if (depth == 0) return false;
        state = remembered[--depth];
        break;
      case 0x0c:  // DW_CFA_def_cfa
        state.cfa = CfaRule::reg;
        state.cfa_reg = in.uleb();
        state.cfa_offset = static_cast<int64_t>(in.uleb());
        break;
      case 0x0d:  // DW_CFA_def_cfa_register
        if (state.cfa != CfaRule::reg) return false;
        state.cfa_reg = in.uleb();
        break;
      case 0x0e:  // DW_CFA_def_cfa_offset
        if (state.cfa != CfaRule::reg) return false;
        state.cfa_offset = static_cast<int64_t>(in.uleb());
        break;
      case 0x0f:  // DW_CFA_def_cfa_expression
        set_cfa_expression(in.bytes(in.uleb()), state);
        break;
      case 0x10: {  // DW_CFA_expression
        const uint64_t reg = in.uleb();
        const std::string_view expression = in.bytes(in.uleb());
        if (reg == kRbp)
          set_bp_expression(expression, state);
        else
          set_unknown_rule(reg, state);
        break;
      }
      case 0x11: {  // DW_CFA_offset_extended_sf
        const uint64_t reg = in.uleb();
        set_offset_rule(reg, wrapping_multiply(static_cast<uint64_t>(in.sleb()), cie.data_align), state);
        break;
      }
      case 0x12:  // DW_CFA_def_cfa_sf
        state.cfa = CfaRule::reg;
        state.cfa_reg = in.uleb();
        state.cfa_offset = wrapping_multiply(static_cast<uint64_t>(in.sleb()), cie.data_align);
        break;
      case 0x13:  // DW_CFA_def_cfa_offset_sf
        if (state.cfa != CfaRule::reg) return false;
        state.cfa_offset = wrapping_multiply(static_cast<uint64_t>(in.sleb()), cie.data_align);
        break;
      case 0x14:    // DW_CFA_val_offset
      case 0x15: {  // DW_CFA_val_offset_sf
        const uint64_t reg = in.uleb();
        const uint64_t offset = in.uleb();  // its sign does not matter: only 0 is of use
        if (reg == kRsp && offset == 0)
          state.sp_is_cfa = true;
        else
          set_unknown_rule(reg, state);
        break;
      }
      case 0x16:  // DW_CFA_val_expression
        set_unknown_rule(in.uleb(), state);
        in.bytes(in.uleb());
        break;
      case 0x2d:  // DW_CFA_GNU_window_save: nothing on x86-64
        break;
      case 0x2e:  // DW_CFA_GNU_args_size: rsp at a landing pad only
        in.uleb();
        break;
      case 0x2f: {  // DW_CFA_GNU_negative_offset_extended
        const uint64_t reg = in.uleb();
        set_offset_rule(reg, wrapping_multiply(~in.uleb() + 1, cie.data_align), state);
        break;
      }
      default:
        return false;
    }
    if (in.failed()) return false;
  }
  at_row(pc, state);
  return true;
}

// One pass over the entries, then one over the FDEs in order of address.
class Compiler {
 public:
  explicit Compiler(const EhFrameInput& input) : input_(input) {}

  std::vector<lt_row> compile(std::vector<uint64_t>* functions) {
    collect();
    const auto by_low = [](const Fde& a, const Fde& b) { return a.low < b.low; };
    if (!std::is_sorted(fdes_.begin(), fdes_.end(), by_low))
      std::stable_sort(fdes_.begin(), fdes_.end(), by_low);
    for (size_t i = 0; functions && i < fdes_.size(); ++i) functions->push_back(fdes_[i].low);
    rows_.reserve(std::min(kMaxRows, fdes_.size() * 8));
    for (size_t i = 0; i < fdes_.size() && rows_.size() < kMaxRows; ++i)
      compile_fde(fdes_[i], i + 1 < fdes_.size() ? fdes_[i + 1].low : std::numeric_limits<uint64_t>::max());
    if (rows_.size() >= kMaxRows) {  // past the last row nothing is known
      rows_.resize(kMaxRows);
      rows_.back() = {rows_.back().pc, LT_ROW_GAP, 0, 0};
    }
    rows_.shrink_to_fit();
    return std::move(rows_);
  }

 private:
  void collect() {
    ByteReader in(input_.bytes);
    while (in.left() >= 4 && fdes_.size() < kMaxFdes) {
      const size_t start = in.offset();
      const auto length = in.get<uint32_t>();
      if (length == 0) {
        if (input_.ends_at_zero) return;
        continue;
      }
      if (length == 0xffffffff) {  // 64-bit entries: no linker writes them into .eh_frame
        in.bytes(in.get<uint64_t>());
        continue;
      }
      const size_t body_at = in.offset();
      const std::string_view body = in.bytes(length);
      if (in.failed()) return;
      ByteReader entry(body);
      const auto id = entry.get<uint32_t>();
      if (entry.failed()) continue;
      if (id == 0) {
        cie_at(start);
      } else if (id <= body_at) {
        const std::optional<uint32_t> cie = cie_at(body_at - id);
        if (cie) add_fde(body, body_at, *cie);
      }
    }
  }

  // The index of the CIE at this offset, parsed on first use; nothing if there is no valid one.
  std::optional<uint32_t> cie_at(size_t offset) {
    if (offset == last_cie_offset_) return last_cie_;
    const auto [it, added] = cie_by_offset_.try_emplace(offset, static_cast<uint32_t>(cies_.size()));
    if (added) cies_.push_back(parse_cie(offset));
    last_cie_offset_ = offset;
    last_cie_ = cies_[it->second].valid ? std::optional(it->second) : std::nullopt;
    return last_cie_;
  }

  Cie parse_cie(size_t offset) const {
    Cie cie;
    ByteReader all(input_.bytes.substr(offset));
    const auto length = all.get<uint32_t>();
    if (length == 0xffffffff) return cie;
    const size_t body_at = offset + 4;
    ByteReader in(all.bytes(length));
    const auto id = in.get<uint32_t>();
    const auto version = in.get<uint8_t>();
    if (id != 0 || (version != 1 && version != 3 && version != 4)) return cie;
    const std::string_view augmentation = in.c_string();
    if (version == 4) {
      const auto address_size = in.get<uint8_t>();
      const auto segment_size = in.get<uint8_t>();
      if (address_size != 8 || segment_size != 0) return cie;
    }
    cie.code_align = in.uleb();
    cie.data_align = in.sleb();
    const uint64_t return_register = version == 1 ? in.get<uint8_t>() : in.uleb();
    if (return_register != kRip || in.failed()) return cie;
    if (!augmentation.empty()) {
      if (augmentation[0] != 'z') return cie;  // data of a size we cannot tell
      cie.has_augmentation = true;
      const uint64_t size = in.uleb();
      const uint64_t at = input_.address + body_at + in.offset();
      if (!parse_augmentation(augmentation.substr(1), ByteReader(in.bytes(size)), at, cie)) return cie;
    }
    if (in.failed()) return cie;
    const uint64_t at = input_.address + body_at + in.offset();
    CfiState state;
    cie.valid =
        run_cfi(in.bytes(in.left()), at, cie, 0, state, [](uint64_t, const CfiState&) { return true; });
    cie.initial = state;
    return cie;
  }

  static bool parse_augmentation(std::string_view letters, ByteReader data, uint64_t address, Cie& cie) {
    for (const char letter : letters) {
      switch (letter) {
        case 'R':
          cie.pointer_encoding = data.get<uint8_t>();
          break;
        case 'L':
          data.get<uint8_t>();
          break;
        case 'P': {
          // Only its size matters here; it may well be indirect.
          const auto encoding =
              static_cast<uint8_t>(data.get<uint8_t>() & ~kPeIndirect & ~kPeApplicationMask);
          if (!encoded_pointer(data, encoding, address)) return false;
          break;
        }
        case 'S':
          cie.signal = true;
          break;
        default:
          return !data.failed();  // unknown letters come last by convention
      }
    }
    return !data.failed();
  }

  void add_fde(std::string_view body, size_t body_at, uint32_t cie_index) {
    const Cie& cie = cies_[cie_index];
    ByteReader in(body);
    in.get<uint32_t>();
    const uint64_t address = input_.address + body_at;
    const auto low = encoded_pointer(in, cie.pointer_encoding, address + in.offset());
    if (!low) return;
    const auto size = encoded_pointer(in, cie.pointer_encoding & 0x0f, 0);
    if (!size || *size == 0) return;
    if (cie.has_augmentation) in.bytes(in.uleb());
    if (in.failed()) return;
    // Rows hold 32-bit addresses: every PIE, shared object and ordinary executable has those.
    constexpr uint64_t kEnd = std::numeric_limits<uint32_t>::max();
    if (*low >= kEnd || *size > kEnd - *low) return;
    const uint64_t at = address + in.offset();
    fdes_.push_back({*low, *low + *size, in.bytes(in.left()), at, cie_index});
  }

  void compile_fde(const Fde& fde, uint64_t next_low) {
    const Cie& cie = cies_[fde.cie];
    const uint64_t end = std::min(fde.high, next_low);
    if (fde.low >= end) return;  // another FDE claims the same start: the later one is taken
    CfiState state = cie.initial;
    uint64_t reached = fde.low;
    const bool understood = run_cfi(fde.instructions, fde.instructions_address, cie, fde.low, state,
                                    [&](uint64_t pc, const CfiState& at) {
                                      if (pc < reached || pc >= end || rows_.size() >= kMaxRows)
                                        return pc < end && pc >= reached;
                                      reached = pc;
                                      push(make_row(pc, at, cie.signal));
                                      return true;
                                    });
    if (!understood) push({static_cast<uint32_t>(reached), LT_ROW_UNSUPPORTED, 0, 0});
    if (fde.high < next_low) push({static_cast<uint32_t>(fde.high), LT_ROW_GAP, 0, 0});
  }

  void push(lt_row row) {
    if (!rows_.empty()) {
      lt_row& last = rows_.back();
      if (last.pc == row.pc) {
        last = row;
        drop_repeated_last();
        return;
      }
      if (last.kind == row.kind && last.bp == row.bp && last.cfa == row.cfa) return;
    }
    rows_.push_back(row);
  }

  void drop_repeated_last() {
    if (rows_.size() < 2) return;
    const lt_row& a = rows_[rows_.size() - 2];
    const lt_row& b = rows_.back();
    if (a.kind == b.kind && a.bp == b.bp && a.cfa == b.cfa) rows_.pop_back();
  }

  const EhFrameInput& input_;
  std::vector<Cie> cies_;
  std::unordered_map<size_t, uint32_t> cie_by_offset_;
  size_t last_cie_offset_ = std::numeric_limits<size_t>::max();
  std::optional<uint32_t> last_cie_;
  std::vector<Fde> fdes_;
  std::vector<lt_row> rows_;
};

}  // namespace

std::vector<lt_row> compile_eh_frame(const EhFrameInput& input, std::vector<uint64_t>* functions) {
  return Compiler(input).compile(functions);
}

std::vector<lt_row> load_rows(const ElfFile& file, std::vector<uint64_t>* functions) {
  if (file.header().e_machine != EM_X86_64) return {};
  if (const ElfFile::Section* section = file.find_section(".eh_frame")) {
    if (section->header.sh_type != SHT_NOBITS && section->header.sh_size <= kMaxEhFrame) {
      const std::string bytes = file.load(*section);
      if (!bytes.empty()) return compile_eh_frame({bytes, section->header.sh_addr, false}, functions);
    }
  }
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type != PT_GNU_EH_FRAME) continue;
    // .eh_frame_hdr: version 1, three encodings, then the pointer to .eh_frame.
    char head[12];
    if (segment.p_filesz < sizeof head || !file.pread(segment.p_offset, head, sizeof head) || head[0] != 1)
      continue;
    ByteReader in(std::string_view(head, sizeof head));
    in.bytes(4);
    const auto address =
        encoded_pointer(in, static_cast<uint8_t>(head[1]), segment.p_vaddr + 4, segment.p_vaddr);
    if (!address) continue;
    const std::string bytes = file.load_from_address(*address, kMaxEhFrame);
    return compile_eh_frame({bytes, *address, true}, functions);
  }
  return {};
}

lt_row find_row(const std::vector<lt_row>& rows, uint64_t pc) {
  if (pc > std::numeric_limits<uint32_t>::max()) return {0, LT_ROW_GAP, 0, 0};
  const auto after = std::upper_bound(rows.begin(), rows.end(), pc,
                                      [](uint64_t at, const lt_row& row) { return at < row.pc; });
  return after == rows.begin() ? lt_row{0, LT_ROW_GAP, 0, 0} : *(after - 1);
}

}  // namespace looptrace
