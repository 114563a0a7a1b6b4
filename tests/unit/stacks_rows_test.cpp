// SPDX-License-Identifier: Apache-2.0
//
// Rows against libdw's own reading of the same .eh_frame: for random addresses of real files both must give
// the same CFA, the same return address slot and the same rbp slot.
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <libelf.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <random>

#include "base/free_with.h"
#include "stacks/code_rows.h"
#include "stacks/eh_frame.h"
#include "stacks/elf_file.h"
#include "stacks/raw_symbols.h"
#include "stacks_cpu_clock.h"
#include "unwind_rows.h"

namespace looptrace {
namespace {

using namespace std::string_literals;

using ElfPtr = std::unique_ptr<Elf, FreeWith<elf_end>>;
using CfiPtr = std::unique_ptr<Dwarf_CFI, FreeWith<dwarf_cfi_end>>;
using FramePtr = std::unique_ptr<Dwarf_Frame, FreeWith<free>>;

std::unique_ptr<ElfFile> open_elf(const std::string& path) {
  auto file = ElfFile::from_fd(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  return file ? std::move(*file) : nullptr;
}

// Made-up registers and a made-up memory in which every word is a hash of its address, so that two
// computations agree only if they read the same place.
struct Machine {
  uint64_t rsp = 0x7ffd00001000, rbp = 0x7ffe00002000, rip = 0;
  std::optional<uint64_t> general(unsigned number) const {
    if (number == 6) return rbp;
    if (number == 7) return rsp;
    return number < 16 ? std::optional(0x7fff00000000 + 0x10000 * number) : std::nullopt;
  }
  static uint64_t memory(uint64_t address) { return (address * 0x9e3779b97f4a7c15ull) >> 4; }
};

// Evaluates the operators that occur in .eh_frame; nothing for any other.
std::optional<uint64_t> evaluate(const Dwarf_Op* ops, size_t n, const Machine& m, uint64_t cfa) {
  std::vector<uint64_t> stack;
  const auto pop = [&] {
    const uint64_t v = stack.empty() ? 0 : stack.back();
    if (!stack.empty()) stack.pop_back();
    return v;
  };
  const auto reg = [&](unsigned number) -> std::optional<uint64_t> {
    return number == 16 ? std::optional(m.rip) : m.general(number);
  };
  for (size_t i = 0; i < n; ++i) {
    const Dwarf_Op& op = ops[i];
    if (op.atom >= DW_OP_breg0 && op.atom <= DW_OP_breg31) {
      const auto base = reg(op.atom - DW_OP_breg0);
      if (!base) return std::nullopt;
      stack.push_back(*base + op.number);
    } else if (op.atom == DW_OP_bregx) {
      const auto base = reg(static_cast<unsigned>(op.number));
      if (!base) return std::nullopt;
      stack.push_back(*base + op.number2);
    } else if (op.atom >= DW_OP_lit0 && op.atom <= DW_OP_lit31) {
      stack.push_back(op.atom - DW_OP_lit0);
    } else if (op.atom == DW_OP_call_frame_cfa) {
      stack.push_back(cfa);
    } else if (op.atom == DW_OP_plus_uconst) {
      stack.push_back(pop() + op.number);
    } else if (op.atom == DW_OP_deref) {
      stack.push_back(Machine::memory(pop()));
    } else if (op.atom == DW_OP_stack_value) {
    } else {
      const uint64_t b = pop(), a = pop();
      if (op.atom == DW_OP_and)
        stack.push_back(a & b);
      else if (op.atom == DW_OP_ge)
        stack.push_back(static_cast<int64_t>(a) >= static_cast<int64_t>(b));
      else if (op.atom == DW_OP_shl)
        stack.push_back(a << b);
      else if (op.atom == DW_OP_plus)
        stack.push_back(a + b);
      else if (op.atom == DW_OP_mul)
        stack.push_back(a * b);
      else
        return std::nullopt;
    }
  }
  return stack.empty() ? std::nullopt : std::optional(stack.back());
}

struct Expected {
  bool covered = false;
  bool end = false;  // return address undefined
  bool signal = false;
  bool plain = false;  // CFA and rbp are functions of registers, return address at CFA - 8 or in one
  std::optional<unsigned> ra_register;
  uint64_t cfa = 0;
  uint64_t bp_at = 0;  // 0: unchanged
};

Expected ask_libdw(Dwarf_CFI* cfi, uint64_t pc) {
  Expected e;
  Dwarf_Frame* raw = nullptr;
  if (dwarf_cfi_addrframe(cfi, pc, &raw) != 0) return e;
  const FramePtr frame(raw);
  e.covered = true;
  bool signal = false;
  if (dwarf_frame_info(frame.get(), nullptr, nullptr, &signal) >= 0) e.signal = signal;
  Machine m;
  m.rip = pc;
  Dwarf_Op* ops = nullptr;
  size_t n = 0;
  Dwarf_Op mem[3];
  if (dwarf_frame_register(frame.get(), 16, mem, &ops, &n) == 0 && n == 0 && ops == mem) {
    e.end = true;  // undefined: "nops 0 and ops mem"
    return e;
  }
  if (dwarf_frame_cfa(frame.get(), &ops, &n) != 0) return e;
  const auto cfa = evaluate(ops, n, m, 0);
  if (!cfa) return e;
  e.cfa = *cfa;
  // The caller's rsp must be the CFA: libdw says "same value" for that.
  if (dwarf_frame_register(frame.get(), 7, mem, &ops, &n) != 0) return e;
  if (n != 0 && !(evaluate(ops, n, m, *cfa) == cfa && ops[n - 1].atom == DW_OP_stack_value)) return e;
  if (dwarf_frame_register(frame.get(), 16, mem, &ops, &n) != 0 || n == 0 || ops == nullptr) return e;
  if (ops[0].atom == DW_OP_regx) {
    e.ra_register = static_cast<unsigned>(ops[0].number);
  } else {
    const auto ra_at = evaluate(ops, n, m, *cfa);
    if (!ra_at || *ra_at != *cfa - 8) return e;
  }
  if (dwarf_frame_register(frame.get(), 6, mem, &ops, &n) != 0) return e;
  if (n == 0) {
    e.plain = true;
    return e;
  }
  if (ops[n - 1].atom == DW_OP_stack_value || ops[0].atom == DW_OP_regx ||
      (ops[0].atom >= DW_OP_reg0 && ops[0].atom <= DW_OP_reg31))
    return e;  // a value, or in another register
  const auto bp_at = evaluate(ops, n, m, *cfa);
  if (!bp_at) return e;
  e.bp_at = *bp_at;
  e.plain = true;
  return e;
}

// The rule is of a kind that rows have, but a number does not fit: a frame of more than 32 MiB, or rbp saved
// more than 1 KiB below the CFA.
bool beyond_row(const Expected& e, const Machine& m) {
  const auto fits = [](uint64_t offset) { return offset + 262144 < (32u << 20) + 262144 && offset % 8 == 0; };
  if (!fits(e.cfa - m.rsp) && !fits(e.cfa - m.rbp)) return true;
  const auto slot = static_cast<int64_t>(e.bp_at - e.cfa);
  return e.bp_at != 0 && (slot < -1024 || slot > 1016);
}

// "" if the row says what libdw says, else what differs.
std::string compare(const lt_row& row, const Expected& e, uint64_t pc) {
  if (!e.covered) return row.kind == LT_ROW_GAP ? "" : "row where libdw has no FDE";
  if (row.kind == LT_ROW_GAP) return "gap where libdw has an FDE";
  if (e.signal) return row.kind == LT_ROW_SIGNAL ? "" : "not a signal frame";
  if (e.end) return row.kind == LT_ROW_END ? "" : "not the end";
  if (!e.plain) return row.kind == LT_ROW_UNSUPPORTED ? "" : "row for what a row cannot say";
  const Machine m;
  if (row.kind == LT_ROW_UNSUPPORTED) return beyond_row(e, m) ? "" : "unsupported";
  const lt_frame frame{pc, m.rsp, m.rbp};
  lt_step step;
  const int number = lt_row_register(row);
  const uint64_t value = number < 0 ? 0 : *m.general(static_cast<unsigned>(number));
  lt_unwind_step(row, &frame, value, &step);
  if (step.status == LT_STEP_DEREF) {
    step.cfa = Machine::memory(step.cfa_at) + step.cfa_add;
  } else if (step.status != LT_STEP_CFA) {
    return "status " + std::to_string(step.status);
  }
  if (step.saved_bp == LT_BP_FROM_CFA) step.bp_at += step.cfa;
  if (step.cfa != e.cfa) return "CFA differs";
  if (step.ra != (e.ra_register ? *m.general(*e.ra_register) : 0)) return "return address differs";
  // gcc's `ret` out of a realigned frame: the file's rule is stale there (eh_frame.cpp).
  if (!step.saved_bp && e.bp_at == m.rbp && e.cfa == m.rsp + 8) return "";
  if ((step.saved_bp ? step.bp_at : 0) != e.bp_at) return "rbp slot differs";
  return "";
}

class RowsAgainstLibdw : public testing::TestWithParam<const char*> {};

TEST_P(RowsAgainstLibdw, AgreeAtRandomAddresses) {
  const std::string path = GetParam();
  const auto file = open_elf(path);
  if (!file) GTEST_SKIP() << path << " is not on this machine";

  const auto before = CpuClock::now();
  const std::vector<lt_row> rows = load_rows(*file);
  const std::chrono::duration<double, std::milli> took = CpuClock::now() - before;
  ASSERT_FALSE(rows.empty());
  ASSERT_TRUE(std::is_sorted(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.pc < b.pc; }));
  std::map<int, size_t> kinds;
  size_t registers = 0;
  for (const lt_row& row : rows) {
    ++kinds[row.kind];
    registers += lt_row_register(row) >= 0;
  }

  elf_version(EV_CURRENT);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const ElfPtr elf(elf_begin(fd.get(), ELF_C_READ, nullptr));
  const CfiPtr cfi(dwarf_getcfi_elf(elf.get()));
  ASSERT_TRUE(cfi);

  // Anywhere in executable sections, and at and around every kind of row that is rare.
  std::mt19937_64 random(1);
  std::vector<uint64_t> addresses;
  for (const auto& section : file->sections()) {
    if (!(section.header.sh_flags & SHF_EXECINSTR) || section.header.sh_size == 0) continue;
    const size_t count = section.name == ".text" ? 20000 : 500;
    for (size_t i = 0; i < count; ++i)
      addresses.push_back(section.header.sh_addr + random() % section.header.sh_size);
  }
  for (const lt_row& row : rows)
    if ((row.kind != LT_ROW_RSP && row.kind != LT_ROW_RBP && row.kind != LT_ROW_GAP) || random() % 50 == 0)
      for (int d = -1; d <= 1; ++d) addresses.push_back(row.pc + static_cast<uint64_t>(d));

  std::map<std::string, size_t> verdicts;
  size_t agreed = 0, unsupported = 0;
  for (const uint64_t pc : addresses) {
    const std::string verdict = compare(find_row(rows, pc), ask_libdw(cfi.get(), pc), pc);
    if (verdict.empty()) {
      ++agreed;
      unsupported += find_row(rows, pc).kind == LT_ROW_UNSUPPORTED;
    } else if (++verdicts[verdict] <= 3) {
      std::printf("  %#lx: %s\n", static_cast<unsigned long>(pc), verdict.c_str());
    }
  }
  std::printf(
      "%s: %zu rows (%.2f MB) in %.2f ms; agree %zu/%zu (%zu of them unsupported); end %zu plt %zu "
      "deref %zu register %zu signal %zu unsupported %zu\n",
      path.c_str(), rows.size(), static_cast<double>(rows.size()) * 8e-6, took.count(), agreed,
      addresses.size(), unsupported, kinds[LT_ROW_END], kinds[LT_ROW_PLT],
      kinds[LT_ROW_DEREF_RBP] + kinds[LT_ROW_DEREF_RSP] + kinds[LT_ROW_DEREF_RSP_ADD] +
          kinds[LT_ROW_DEREF_RBP_ADD],
      registers, kinds[LT_ROW_SIGNAL], kinds[LT_ROW_UNSUPPORTED]);
  EXPECT_EQ(agreed, addresses.size());
}

INSTANTIATE_TEST_SUITE_P(Files, RowsAgainstLibdw,
                         testing::Values("/proc/self/exe", "/lib/x86_64-linux-gnu/libc.so.6",
                                         "/usr/bin/python3.11", "/lib/x86_64-linux-gnu/libcrypto.so.3",
                                         "/usr/bin/node", "/lib/x86_64-linux-gnu/libstdc++.so.6",
                                         "/usr/sbin/nginx", "/usr/bin/redis-server",
                                         "/lib64/ld-linux-x86-64.so.2"));

TEST(Rows, AreFoundWithoutSectionHeaders) {
  const auto file = open_elf("/lib/x86_64-linux-gnu/libc.so.6");
  if (!file) GTEST_SKIP() << "no Debian libc on this machine";
  const std::string bytes = file->load(0, file->size());
  std::vector<uint8_t> image(bytes.begin(), bytes.end());
  Elf64_Ehdr header = file->header();
  header.e_shoff = header.e_shnum = header.e_shstrndx = 0;
  std::memcpy(image.data(), &header, sizeof header);
  const auto stripped = ElfFile::from_memory(std::move(image), "stripped");
  ASSERT_TRUE(stripped);
  const auto expected = load_rows(*file), rows = load_rows(**stripped);
  ASSERT_EQ(rows.size(), expected.size());
  EXPECT_EQ(std::memcmp(rows.data(), expected.data(), rows.size() * sizeof(lt_row)), 0);
}

// ---- hand-made sections

struct Section {
  std::string bytes;
  void u32(uint32_t v) { bytes.append(reinterpret_cast<const char*>(&v), 4); }
  void entry(const std::string& body) {
    u32(static_cast<uint32_t>(body.size()));
    bytes += body;
  }
  // A CIE as gcc writes it, with absolute 4-byte pointers: CFA = rsp + 8, return address at CFA - 8.
  size_t cie(const std::string& extra = {}) {
    const size_t at = bytes.size();
    std::string body("\0\0\0\0\x01zR\0\x01\x78\x10\x01\x03\x0c\x07\x08\x90\x01", 18);
    entry(body + extra);
    return at;
  }
  void fde(size_t cie_at, uint32_t low, uint32_t size, const std::string& instructions) {
    const auto back = static_cast<uint32_t>(bytes.size() + 4 - cie_at);
    std::string body;
    for (const uint32_t v : {back, low, size}) body.append(reinterpret_cast<const char*>(&v), 4);
    body += '\0';
    entry(body + instructions);
  }
  std::vector<lt_row> rows() const { return compile_eh_frame({bytes, 0, false}); }
};

void expect_rows(const std::vector<lt_row>& rows, const std::vector<lt_row>& expected) {
  ASSERT_EQ(rows.size(), expected.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].pc, expected[i].pc) << i;
    EXPECT_EQ(int{rows[i].kind}, int{expected[i].kind}) << i;
    EXPECT_EQ(int{rows[i].bp}, int{expected[i].bp}) << i;
    EXPECT_EQ(rows[i].cfa, expected[i].cfa) << i;
  }
}

TEST(Rows, OfAPrologue) {
  Section s;
  // push %rbp; mov %rsp,%rbp
  s.fde(s.cie(), 0x1000, 0x20, std::string("\x41\x0e\x10\x86\x02\x43\x0d\x06", 8));
  expect_rows(s.rows(), {{0x1000, LT_ROW_RSP, 0, 1},
                         {0x1001, LT_ROW_RSP, -2, 2},
                         {0x1004, LT_ROW_RBP, -2, 2},
                         {0x1020, LT_ROW_GAP, 0, 0}});
}

TEST(Rows, OfNeighboursAreMergedAndOverlapsAreCut) {
  Section s;
  const size_t cie = s.cie();
  s.fde(cie, 0x2000, 0x10, "");
  s.fde(cie, 0x1000, 0x1000, std::string("\x41\x0e\x10", 3));
  s.fde(cie, 0x2010, 0x100, "");
  s.fde(cie, 0x2080, 0x10, std::string("\x07\x10", 2));  // inside the one before: return address undefined
  expect_rows(s.rows(), {{0x1000, LT_ROW_RSP, 0, 1},
                         {0x1001, LT_ROW_RSP, 0, 2},
                         {0x2000, LT_ROW_RSP, 0, 1},
                         {0x2080, LT_ROW_END, 0, 0},
                         {0x2090, LT_ROW_GAP, 0, 0}});
}

TEST(Rows, RememberAndRestoreState) {
  Section s;
  s.fde(s.cie(), 0x1000, 0x20, std::string("\x41\x0e\x10\x0a\x41\x0e\x18\x41\x0b", 9));
  expect_rows(s.rows(), {{0x1000, LT_ROW_RSP, 0, 1},
                         {0x1001, LT_ROW_RSP, 0, 2},
                         {0x1002, LT_ROW_RSP, 0, 3},
                         {0x1003, LT_ROW_RSP, 0, 2},
                         {0x1020, LT_ROW_GAP, 0, 0}});
}

TEST(Rows, OfWhatCannotBeSaidAreUnsupported) {
  Section s;
  const size_t cie = s.cie();
  s.fde(cie, 0x1000, 0x10, std::string("\x0d\x11", 2));                        // CFA in xmm0
  s.fde(cie, 0x1100, 0x10, std::string("\x0e\x80\x80\x80\x10", 5));            // offset 32 MiB
  s.fde(cie, 0x1200, 0x10, std::string(200, '\x0a'));                          // remembered without end
  s.fde(cie, 0x1300, 0x10, std::string("\x0b", 1));                            // nothing to restore
  s.fde(cie, 0x1400, 0x10, std::string("\x3f", 1));                            // no such instruction
  s.fde(cie, 0x1500, 0x10, std::string("\x0e", 1) + std::string(40, '\x80'));  // LEB128 without end
  s.fde(cie, 0x1600, 0x10, std::string("\x90\x03", 2));                        // return address at CFA - 24
  for (const lt_row& row : s.rows())
    EXPECT_EQ(int{row.kind}, row.pc % 0x100 == 0 ? LT_ROW_UNSUPPORTED : LT_ROW_GAP) << std::hex << row.pc;
  EXPECT_EQ(s.rows().size(), 14u);
}

TEST(Rows, ManyFdesOverOneLongCieAreLinear) {
  Section s;
  const size_t cie = s.cie(std::string(1 << 20, '\0'));  // a megabyte of nops
  for (uint32_t i = 0; i < 100000; ++i) s.fde(cie, 0x1000 + i * 16, 16, std::string("\x41\x0e\x10", 3));
  const auto before = CpuClock::now();
  EXPECT_EQ(s.rows().size(), 200001u);
  EXPECT_LT(CpuClock::now() - before, std::chrono::seconds(2));
}

TEST(Rows, NeverExceedTheirCap) {
  Section s;
  const size_t cie = s.cie();
  // Each byte pair moves on by one and flips the rule: a row for every two bytes or so.
  std::string flips;
  for (int i = 0; i < 1 << 20; ++i) flips += std::string("\x41\x0e\x10\x41\x0e\x08", 6);
  for (uint32_t i = 0; i < 6; ++i) s.fde(cie, i * 0x400000, 0x400000, flips);
  const auto rows = s.rows();
  EXPECT_EQ(rows.size(), kMaxRows);
  EXPECT_EQ(int{rows.back().kind}, LT_ROW_GAP);
}

// What the code itself says, where a table says it too.
TEST(CodeRows, AgreeWithTheTables) {
  for (const char* path : {"/lib/x86_64-linux-gnu/libz.so.1", "/lib/x86_64-linux-gnu/libelf.so.1",
                           "/lib/x86_64-linux-gnu/libc.so.6"}) {
    const auto file = open_elf(path);
    if (!file) GTEST_SKIP() << path << " is not on this machine";
    const ElfFile::Section* text = file->find_section(".text");
    const auto symbols = load_symbols(*file, SHT_DYNSYM);
    ASSERT_TRUE(text && symbols);
    const std::string code = file->load(*text);
    CodeInput input{code, text->header.sh_addr, {}, {}};
    for (size_t i = 1; i < symbols->size(); ++i) {
      const Elf64_Sym symbol = symbols->at(i);
      if (symbol.st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbol.st_info) == STT_FUNC)
        input.entries.push_back(symbol.st_value);
    }
    const auto table = load_rows(*file), rows = rows_from_code(input);
    size_t same = 0, other = 0, known = 0;
    for (uint64_t pc = input.address; pc < input.address + code.size(); ++pc) {
      const lt_row expected = find_row(table, pc), found = find_row(rows, pc);
      if (expected.kind != LT_ROW_RSP || found.kind == LT_ROW_GAP) continue;
      known += found.kind != LT_ROW_UNSUPPORTED;
      if (found.kind != LT_ROW_RSP) continue;
      // Behind its pop, rbp is its caller's again; tables still say where it was.
      ++(found.cfa == expected.cfa && (found.bp == expected.bp || !found.bp) ? same : other);
    }
    std::printf("%s: %zu bytes of code, of %zu that were followed %zu as the table says, %zu otherwise\n",
                path, code.size(), known, same, other);
    EXPECT_GT(known, code.size() / 4);
    // Behind calls of other libraries' functions that do not return.
    EXPECT_LE(other, same / 200);
  }
}

TEST(CodeRows, OfWhatCompilersAndAssemblerDo) {
  const std::string code =
      "\x55\x48\x89\xe5\x48\x83\xec\x20\xc9\xc3"  // 0: push rbp; mov rbp,rsp; sub rsp,32; leave; ret
      "\x48\x83\xe4\xf0\xe8\x01\x00\x00\x00\xf4"  // 10: and rsp,-16; call 20; hlt
      "\x53\x48\x83\xec\x10\xe8\x08\x00\x00\x00\x90\x90\xc3"  // 20: push rbx; sub rsp,16; call 38; nop ...
      "\x5f\xff\xd1\xf4"                                      // 33: pop rdi; call rcx; hlt
      "\x90"                                                  // 37
      "\xeb\xfe"s;                                            // 38: for (;;);
  const auto rows = rows_from_code({code, 0x1000, {0x1000, 0x1014, 0x1021}, 0x100a});
  const auto is = [&](uint64_t pc, int kind, int bp, int cfa) {
    const lt_row row = find_row(rows, 0x1000 + pc);
    EXPECT_EQ(row.kind, kind) << pc;
    EXPECT_EQ(row.bp, bp) << pc;
    EXPECT_EQ(row.cfa, cfa) << pc;
  };
  is(0, LT_ROW_RSP, 0, 1);
  is(1, LT_ROW_RSP, -2, 2);
  is(8, LT_ROW_RSP, -2, 6);
  is(9, LT_ROW_RSP, 0, 1);
  is(10, LT_ROW_END, 0, 0);
  is(18, LT_ROW_END, 0, 0);
  is(25, LT_ROW_RSP, 0, 4);
  is(30, LT_ROW_GAP, 0, 0);  // what is called does not return
  is(33, LT_ROW_RSP, 0, 1);
  is(35, LT_ROW_END, 0, 0);  // a thread's first function: its return address is gone
  is(38, LT_ROW_RSP, 0, 1);
}

TEST(CodeRows, AnyBytesAreFollowedToAnEnd) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::string code(4096, '\0');
    for (char& c : code) c = static_cast<char>(random());
    CodeInput input{code, 0x1000, {}, {}};
    for (int i = 0; i < 64; ++i) input.entries.push_back(0x1000 + random() % 5000);
    const auto rows = rows_from_code(input);
    EXPECT_LE(rows.size(), 2 * code.size());
    EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.pc < b.pc; }));
  }
}

}  // namespace
}  // namespace looptrace
