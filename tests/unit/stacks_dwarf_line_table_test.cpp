// SPDX-License-Identifier: Apache-2.0
//
// Lines against libdw's, of what compilers write, and of tables that they do not.
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/fd.h"
#include "looptrace.h"
#include "stacks/dwarf_line_table.h"
#include "stacks/elf_object.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

std::string by_libdw(Dwarf* dwarf, uint64_t address) {
  Dwarf_Die unit;
  Dwarf_Line* line = nullptr;
  // Not by .debug_aranges, which clang does not write.
  Dwarf_CU* cu = nullptr;
  for (uint8_t kind = 0; dwarf_get_units(dwarf, cu, &cu, nullptr, &kind, &unit, nullptr) == 0;)
    if (dwarf_haspc(&unit, address) > 0) line = dwarf_getsrc_die(&unit, address);
  int number = 0;
  if (!line || dwarf_lineno(line, &number) != 0) return "none";
  return std::string(dwarf_linesrc(line, nullptr, nullptr)) + ":" + std::to_string(number);
}

// Every address in 20,000 bytes in the middle of its code, and how many have lines.
size_t compare(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  auto object = ElfObject::from_fd(UniqueFd(::dup(fd.get())), path);
  Dwarf* const dwarf = dwarf_begin(fd.get(), DWARF_C_READ);
  if (!object || !dwarf) return 0;
  size_t with_lines = 0, different = 0;
  const auto& rows = (*object)->rows();
  const uint64_t first = rows.front().pc, last = rows.back().pc;
  const uint64_t begin = std::max(first, last - std::min(last, (last - first) / 2 + 10'000));
  for (uint64_t at = begin, end = std::min(at + 20'000, last); at < end; ++at) {
    const auto positions = (*object)->positions(at);
    const std::string ours = positions.empty() || (positions[0].file.empty() && positions[0].line == 0)
                                 ? "none"
                                 : positions[0].file + ":" + std::to_string(positions[0].line);
    const std::string theirs = by_libdw(dwarf, at);
    with_lines += theirs != "none";
    if (ours != theirs && ++different < 5) ADD_FAILURE() << std::hex << at << ": " << ours << ", " << theirs;
  }
  EXPECT_EQ(different, 0u);
  dwarf_end(dwarf);
  return with_lines;
}

TEST(DwarfLineTable, IsReadAsByLibdw) {
  const fs::path directory = fs::temp_directory_path() / ("looptrace-lines-" + std::to_string(getpid()));
  fs::create_directories(directory / "inc");
  std::ofstream(directory / "inc/twice.h") << "static inline int twice(int x) {\n  return x * 2;\n}\n";
  std::ofstream(directory / "a.c")
      << "#include \"inc/twice.h\"\nvolatile int g;\n"
         "__attribute__((cold)) int rare(int x) {\n  g = x;\n  return twice(g);\n}\n"
         "int often(int x) {\n  if (x > 7)\n\n    return rare(x);\n  return twice(x) + g;\n}\n"
         "#line 70000 \"/usr/src/other.c\"\n"
         "int main(int argc, char** argv) {\n  (void)argv;\n\n\n  return often(argc);\n}\n";
  size_t compared = 0;
  for (const char* compiler : {"cc", "clang-14"}) {
    for (const char* options : {"-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5", "-gdwarf-5 -gdwarf64",
                                "-gdwarf-4 -ffunction-sections", "-gdwarf-5 -gz"}) {
      SCOPED_TRACE(std::string(compiler) + " " + options);
      const std::string command =
          "cd " + directory.string() + " && " + compiler + " -O2 -g " + options + " a.c -o a >/dev/null 2>&1";
      if (std::system(command.c_str()) != 0) continue;
      ++compared;
      EXPECT_GT(compare(directory / "a"), 30u);
    }
  }
  fs::remove_all(directory);
  if (!compared) GTEST_SKIP() << "no C compiler";
}

TEST(DwarfLineTable, OfALargeProgramIsReadAsByLibdw) { EXPECT_GT(compare("/proc/self/exe"), 10'000u); }

// A table of version 4 with a file, and the bytes of a program.
std::string table(const std::string& program, uint8_t operations = 1, size_t files = 1) {
  std::string header = {1, static_cast<char>(operations), 1, -5, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1};
  header += std::string("dir\0", 5);
  for (size_t i = 0; i < files; ++i) header += std::string("a.c\0\1\0", 7);
  header += '\0';
  std::string bytes(10, '\0');
  const auto header_size = static_cast<uint32_t>(header.size());
  const auto size = static_cast<uint32_t>(6 + header.size() + program.size());
  std::memcpy(&bytes[0], &size, 4);
  bytes[4] = 4;
  std::memcpy(&bytes[6], &header_size, 4);
  return bytes + header + program;
}
std::string set_address(uint64_t address) {
  std::string bytes = {0, 9, DW_LNE_set_address};
  return bytes.append(reinterpret_cast<const char*>(&address), sizeof address);
}
const std::string kEnd = {0, 1, DW_LNE_end_sequence};
std::string add_line(int lines) { return {DW_LNS_advance_line, static_cast<char>(lines)}; }
std::string advance(int bytes) { return {DW_LNS_advance_pc, static_cast<char>(bytes)}; }
const std::string kCopy = {DW_LNS_copy};

int line_at(const std::string& bytes, uint64_t address) {
  const auto read = DwarfLineTable::read(bytes, {}, "/src");
  if (!read) return -1;
  const auto place = read->find(address);
  return place ? place->line : 0;
}

TEST(DwarfLineTable, SequencesInNoOrder) {
  const std::string bytes =
      table(set_address(0x2000) + kCopy + advance(16) + kEnd +  //
            set_address(0x1000) + add_line(9) + kCopy + add_line(10) + kCopy + advance(16) + kEnd +
            set_address(0x1010) + add_line(29) + kCopy + advance(4) + kEnd);
  const auto read = DwarfLineTable::read(bytes, {}, "/src");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->file(1), "dir/a.c");
  EXPECT_EQ(read->file(0), "/src/???");
  EXPECT_EQ(read->file(2), "");
  EXPECT_EQ(line_at(bytes, 0xfff), 0);
  EXPECT_EQ(line_at(bytes, 0x1000), 20) << "the last of those that begin there";
  EXPECT_EQ(line_at(bytes, 0x100f), 20);
  EXPECT_EQ(line_at(bytes, 0x1010), 30) << "where another one ends";
  EXPECT_EQ(line_at(bytes, 0x1014), 0);
  EXPECT_EQ(line_at(bytes, 0x1fff), 0);
  EXPECT_EQ(line_at(bytes, 0x200f), 1);
  EXPECT_EQ(line_at(bytes, ~uint64_t{0}), 0);
}

TEST(DwarfLineTable, ManyLines) {
  std::string program = set_address(0x1000);
  for (int i = 0; i < 100'000; ++i) program += add_line(1) + advance(2) + kCopy;
  const std::string bytes = table(program + advance(2) + kEnd);
  const auto read = DwarfLineTable::read(bytes, {}, "");
  ASSERT_TRUE(read);
  EXPECT_LT(read->bytes(), bytes.size() / 8);
  auto in_pieces = DwarfLineTable::open(bytes, {}, "");
  ASSERT_TRUE(in_pieces);
  int pieces = 0;
  for (; in_pieces->left(); ++pieces) in_pieces->read_on(1000);
  EXPECT_GE(pieces, 400);
  EXPECT_FALSE(in_pieces->failed());
  EXPECT_EQ(in_pieces->bytes(), read->bytes());
  for (int i = 1; i < 100'000; i += 77) {
    EXPECT_EQ(read->find(0x1001u + 2 * i)->line, 1 + i);
    EXPECT_EQ(in_pieces->find(0x1001u + 2 * i)->line, 1 + i);
  }
  EXPECT_FALSE(read->find(0x1000)) << "before the first";
}

TEST(DwarfLineTable, OfAMachineWithSeveralOperationsAnInstruction) {
  const std::string bytes =
      table(set_address(0x1000) + kCopy + advance(5) + add_line(1) + kCopy + advance(9) + kEnd, 3);
  EXPECT_EQ(line_at(bytes, 0x1000), 1);
  EXPECT_EQ(line_at(bytes, 0x1001), 2) << "5 operations are an instruction and two thirds";
  EXPECT_EQ(line_at(bytes, 0x1003), 2);
  EXPECT_EQ(line_at(bytes, 0x1004), 0);
}

TEST(DwarfLineTable, BrokenOnesHaveNoLines) {
  const std::string bytes = table(set_address(0x1000) + kCopy + advance(16) + kEnd);
  EXPECT_EQ(line_at(bytes, 0x1000), 1);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_EQ(line_at(bytes.substr(0, size), 0x1000), -1) << size;
  std::string many = table(std::string(200'000 * 3, '\0'));
  for (size_t at = 48; at + 3 <= many.size(); at += 3) many[at + 1] = 1, many[at + 2] = DW_LNE_end_sequence;
  const auto read = DwarfLineTable::read(many, {}, "");
  if (read) {
    EXPECT_LT(read->bytes(), 8u << 20) << "however many sequences there are";
    EXPECT_FALSE(read->find(0x1000));
  }
  EXPECT_EQ(line_at(table(set_address(0x1000) +
                          std::string{DW_LNS_advance_line, '\xff', '\xff', '\xff', '\xff', '\xff', 1} +
                          kCopy + kEnd),
                    0x1000),
            0)
      << "no line has such a number";
}

}  // namespace
}  // namespace looptrace
