// SPDX-License-Identifier: Apache-2.0
#include "stacks/user_unwinder.h"

#include <sys/uio.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>

#include "stacks/eh_frame.h"
#include "stacks/elf_object.h"
#include "unwind_rows.h"

namespace looptrace {
namespace {

constexpr uint64_t kPage = 4096;
constexpr size_t kPages = 8;  // a stack is read upwards: few are live at a time

lt_row row_at(const ProcessModules& modules, uint64_t pc) {
  const Module* module = modules.find(pc);
  const std::vector<lt_row>* rows = module ? module->rows() : nullptr;
  return rows ? find_row(*rows, pc - module->bias) : lt_row{0, LT_ROW_GAP, 0, 0};
}

// `exact`: the frame was interrupted, not left by a call. Behind a `syscall` instruction its pc can be past
// the end of the function's FDE, so a gap there is looked up like a return address.
lt_row row_for_frame(const ProcessModules& modules, uint64_t pc, bool exact) {
  if (exact) {
    const lt_row row = row_at(modules, pc);
    if (row.kind != LT_ROW_GAP) return row;
  }
  return row_at(modules, pc - 1);
}

// One frame of a walk.
struct Frame {
  lt_frame at;
  bool exact = true;                   // interrupted, not left by a call
  std::array<uint64_t, 16> general{};  // as the last interrupted frame had them, by DWARF number ...
  uint16_t known = 0;                  // ... and which of them this frame still has
  bool bp_known = true;
  uint64_t gregs = 0;  // nonzero: they are in memory, in a ucontext
};

std::optional<uint64_t> register_of(const Frame& frame, int number, const ReadWord& read) {
  if (!(frame.known >> number & 1)) return std::nullopt;
  if (frame.gregs) {
    uint64_t value = 0;
    const auto index = LT_REGISTER_INDEX(LT_GREGS_ORDER, number);
    return read(frame.gregs + 8 * index, value) ? std::optional(value) : std::nullopt;
  }
  return frame.general[static_cast<size_t>(number)];
}

bool needs_bp(const lt_row& row) {
  switch (row.kind) {
    case LT_ROW_RBP:
    case LT_ROW_DEREF_RBP:
    case LT_ROW_DEREF_RBP_ADD:
    case LT_ROW_GAP:
    case LT_ROW_STACK_SWITCH:
    case LT_ROW_INTERPRETED:
      return true;
  }
  return row.bp == LT_ROW_BP_HERE;
}

// Makes `frame` its caller's, or returns the status that ends the walk.
std::optional<lt_unwind_status> leave(const lt_row& row, const ReadWord& read_word, Frame& frame) {
  const auto read = [&](uint64_t address, __u64& value) {  // a type of its own, as wide as uint64_t
    uint64_t word = 0;
    const bool done = read_word(address, word);
    value = word;
    return done;
  };
  uint64_t value = 0;
  if (const int number = lt_row_register(row); number >= 0) {
    const auto known = register_of(frame, number, read_word);
    if (!known) return LT_UNWIND_UNSUPPORTED;
    value = *known;
  }
  lt_step step;
  lt_unwind_step(row, &frame.at, value, &step);
  Frame caller = frame;
  caller.exact = false;
  caller.known = static_cast<uint16_t>(frame.known & ~LT_CALLEE_SAVED);
  if (step.status == LT_STEP_SIGNAL) {
    if (!read(step.cfa_at + 8ull * LT_GREG_RIP, caller.at.pc) ||
        !read(step.cfa_at + 8ull * LT_GREG_RSP, caller.at.sp) ||
        !read(step.cfa_at + 8ull * LT_GREG_RBP, caller.at.bp))
      return LT_UNWIND_READ_FAULT;
    caller.gregs = step.cfa_at;
    caller.known = 0xffff;
    caller.bp_known = true;
    caller.exact = true;
    // The interrupted stack may be any other one (sigaltstack), so its address proves nothing.
    if (caller.at.pc == 0) return LT_UNWIND_BAD_FRAME;
    frame = caller;
    return std::nullopt;
  }
  if (step.status == LT_STEP_DEREF) {
    __u64 base;
    if (!read(step.cfa_at, base)) return LT_UNWIND_READ_FAULT;
    step.cfa = base + step.cfa_add;
  } else if (step.status != LT_STEP_CFA && step.status != LT_STEP_SP) {
    return static_cast<lt_unwind_status>(step.status);
  }
  if (step.saved_bp == LT_BP_FROM_CFA) step.bp_at += step.cfa;
  // vfork has no frame: its caller's sp is its own.
  if (row.kind != LT_ROW_STACK_SWITCH && (step.cfa < frame.at.sp || (step.cfa == frame.at.sp && !step.ra)))
    return LT_UNWIND_BAD_FRAME;
  caller.at.pc = step.ra;
  if (!step.ra && !read(step.cfa - 8, caller.at.pc)) return LT_UNWIND_READ_FAULT;
  if (caller.at.pc == 0) return LT_UNWIND_END;
  if (step.saved_bp && !read(step.bp_at, caller.at.bp)) return LT_UNWIND_READ_FAULT;
  caller.bp_known = frame.bp_known || step.saved_bp;
  caller.at.sp = step.cfa;
  if (step.status == LT_STEP_SP) {
    if (!read(step.cfa_at, caller.at.sp)) return LT_UNWIND_READ_FAULT;
    if (caller.at.sp < step.cfa) return LT_UNWIND_BAD_FRAME;
  }
  frame = caller;
  return std::nullopt;
}

class PageReader {
 public:
  explicit PageReader(pid_t pid) : pid_(pid) {}

  bool read(uint64_t address, uint64_t& value) {
    const uint64_t in_page = address % kPage;
    if (in_page > kPage - sizeof value) return fetch(address, &value, sizeof value);
    const uint64_t base = address - in_page;
    Page& page = pages_[(base / kPage) % kPages];
    if (page.base != base) {
      page.base = kNone;
      if (!fetch(base, page.bytes.data(), kPage)) return false;
      page.base = base;
    }
    std::memcpy(&value, page.bytes.data() + in_page, sizeof value);
    return true;
  }

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};
  struct Page {
    uint64_t base = kNone;
    std::array<uint8_t, kPage> bytes;
  };

  bool fetch(uint64_t address, void* into, size_t size) const {
    iovec local{into, size};
    iovec remote{reinterpret_cast<void*>(address), size};
    return ::process_vm_readv(pid_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
  }

  pid_t pid_;
  std::array<Page, kPages> pages_;
};

}  // namespace

UnwoundStack unwind(const ProcessModules& modules, UnwindRegisters registers, const ReadWord& read,
                    size_t max_frames) {
  UnwoundStack stack;
  Frame frame;
  frame.at = {registers.ip, registers.sp, registers.bp};
  frame.general = registers.general;
  frame.known = registers.known;
  frame.bp_known = registers.bp_known;
  while (stack.addresses.size() < max_frames) {
    stack.addresses.push_back(frame.at.pc);
    const lt_row row = row_for_frame(modules, frame.at.pc, frame.exact);
    if (!frame.bp_known && needs_bp(row)) {
      stack.status = LT_UNWIND_UNSUPPORTED;
      stack.lacks_bp = true;
      return stack;
    }
    if (row.kind == LT_ROW_GAP || row.kind == LT_ROW_INTERPRETED) {
      stack.uncovered.push_back(
          {static_cast<uint32_t>(stack.addresses.size() - 1), frame.at.bp, frame.at.sp, frame.at.pc});
    }
    if (const auto status = leave(row, read, frame)) {
      stack.status = *status;
      return stack;
    }
  }
  stack.status = LT_UNWIND_FULL;
  return stack;
}

ReadWord memory_reader(pid_t pid) {
  return [reader = std::make_shared<PageReader>(pid)](uint64_t address, uint64_t& value) {
    return reader->read(address, value);
  };
}

}  // namespace looptrace
