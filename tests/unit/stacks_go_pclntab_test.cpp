// SPDX-License-Identifier: Apache-2.0
//
// A made-up .gopclntab of two functions. stacks_oracle_test.cpp has real programs, where Go is installed.
#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "stacks/eh_frame.h"
#include "stacks/elf_file.h"
#include "stacks/go_pclntab.h"

namespace looptrace {
namespace {

constexpr uint64_t kText = 0x401000;

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// work() is [0, 0x40): one byte without a frame, then 8 bytes of it; lines 10 and 15. goexit() is [0x40,
// 0x50).
std::string make_table(uint32_t magic, uint64_t text) {
  std::string names("\0main.work\0runtime.goexit\0", 26), files("/srv/work.go\0", 13), units;
  put(units, uint32_t{0});
  std::string values("\0", 1);
  const auto add_values = [&](std::string_view steps) {
    const auto at = static_cast<uint32_t>(values.size());
    values += steps;
    return at;
  };
  const uint32_t sizes = add_values(std::string_view("\x02\x01\x10\x3f\x00", 5));
  const uint32_t file = add_values(std::string_view("\x02\x40\x00", 3));
  const uint32_t lines = add_values(std::string_view("\x16\x10\x0a\x30\x00", 5));
  std::string table;
  put(table, uint32_t{0});
  put(table, uint32_t{20});
  put(table, uint32_t{0x40});
  put(table, uint32_t{64});
  put(table, uint32_t{0x50});
  const auto add_function = [&](uint32_t entry, uint32_t name, uint8_t flags, uint32_t pcsp) {
    for (const uint32_t word : {entry, name, 0u, 0u, pcsp, file, lines, 0u, 0u, 1u}) put(table, word);
    for (const uint8_t byte : {uint8_t{0}, flags, uint8_t{0}, uint8_t{0}}) put(table, byte);
  };
  add_function(0, 1, 0, sizes);
  add_function(0x40, 11, 1, 0);

  std::string out;
  put(out, magic);
  out += std::string("\0\0\x01\x08", 4);
  put(out, uint64_t{2});  // functions
  put(out, uint64_t{1});  // files
  put(out, text);
  uint64_t at = 72;
  for (const std::string* part : {&names, &units, &files, &values, &table}) {
    put(out, at);
    at += part->size();
  }
  return out + names + units + files + values + table;
}

std::unique_ptr<ElfFile> make_file(const std::string& table, uint64_t entry = 0) {
  const std::string names("\0.text\0.gopclntab\0.shstrtab\0", 28);
  std::string image(sizeof(Elf64_Ehdr), '\0');
  const uint64_t table_at = image.size(), names_at = table_at + table.size();
  image += table + names;
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_entry = entry;
  header.e_ehsize = sizeof header;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 4;
  header.e_shstrndx = 3;
  header.e_shoff = image.size();
  std::memcpy(image.data(), &header, sizeof header);
  Elf64_Shdr none{}, text{}, tab{}, strings{};
  text.sh_name = 1;
  text.sh_type = SHT_NOBITS;
  text.sh_flags = SHF_ALLOC | SHF_EXECINSTR;
  text.sh_addr = kText;
  text.sh_size = 0x50;
  tab.sh_name = 7;
  tab.sh_type = SHT_PROGBITS;
  tab.sh_offset = table_at;
  tab.sh_size = table.size();
  strings.sh_name = 18;
  strings.sh_type = SHT_STRTAB;
  strings.sh_offset = names_at;
  strings.sh_size = names.size();
  for (const Elf64_Shdr* section : {&none, &text, &tab, &strings}) put(image, *section);
  auto file = ElfFile::from_memory({image.begin(), image.end()}, "made-up");
  return file ? std::move(*file) : nullptr;
}

TEST(GoPclntab, NamesLinesAndRows) {
  for (const uint32_t magic : {0xfffffff1u, 0xfffffff0u}) {
    const auto file = make_file(make_table(magic, kText));
    ASSERT_TRUE(file);
    const auto table = GoPclntab::load(*file);
    ASSERT_TRUE(table);
    const auto found = table->find(kText + 0x3f);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->name, "main.work");
    EXPECT_EQ(found->start, kText);
    EXPECT_EQ(found->end, kText + 0x40);
    EXPECT_EQ(table->find(kText + 0x40)->name, "runtime.goexit");
    EXPECT_FALSE(table->find(kText - 1));
    EXPECT_FALSE(table->find(kText + 0x50));
    EXPECT_EQ(table->line_of(kText)->line, 10);
    EXPECT_EQ(table->line_of(kText + 0x10)->line, 15);
    EXPECT_EQ(table->line_of(kText + 0x10)->file, "/srv/work.go");

    std::vector<lt_row> rows;
    table->add_rows(rows);
    EXPECT_EQ(find_row(rows, kText).kind, LT_ROW_RSP);
    EXPECT_EQ(find_row(rows, kText).cfa, 1);
    EXPECT_EQ(find_row(rows, kText).bp, 0);
    EXPECT_EQ(find_row(rows, kText + 1).cfa, 2);
    EXPECT_EQ(find_row(rows, kText + 1).bp, -2);
    EXPECT_EQ(find_row(rows, kText + 0x40).kind, LT_ROW_END);
    EXPECT_EQ(find_row(rows, kText + 0x50).kind, LT_ROW_GAP);
    // C code around it keeps its rows.
    rows = {{0x400000, LT_ROW_RSP, 0, 7}, {0x402000, LT_ROW_RSP, 0, 9}};
    table->add_rows(rows);
    EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.pc < b.pc; }));
    EXPECT_EQ(find_row(rows, kText - 1).cfa, 7);
    EXPECT_EQ(find_row(rows, kText + 1).cfa, 2);
    EXPECT_EQ(find_row(rows, kText + 0x50).cfa, 7);
    EXPECT_EQ(find_row(rows, 0x402000).cfa, 9);
  }
}

TEST(GoPclntab, IsNotUsedWhereItsPlaceIsNotCertain) {
  // No address in the header, and the program's entry point is not Go's.
  EXPECT_FALSE(GoPclntab::load(*make_file(make_table(0xfffffff1, 0), kText)));
  EXPECT_FALSE(GoPclntab::load(*make_file(make_table(0xfffffffb, kText))));  // Go 1.2
}

TEST(GoPclntab, SurvivesAnything) {
  std::mt19937 random(3);
  const std::string good = make_table(0xfffffff1, kText);
  size_t loaded = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bad = good;
    for (int i = 0; i < 3; ++i) bad[8 + random() % (bad.size() - 8)] = static_cast<char>(random());
    const auto file = make_file(bad);
    ASSERT_TRUE(file);
    const auto table = GoPclntab::load(*file);
    if (!table) continue;
    ++loaded;
    for (const uint64_t at : {uint64_t{0}, uint64_t{0x20}, uint64_t{0x45}}) {
      (void)table->find(kText + at);
      (void)table->line_of(kText + at);
    }
    std::vector<lt_row> rows{{0x400000, LT_ROW_RSP, 0, 7}};
    table->add_rows(rows);
    EXPECT_LE(rows.size(), kMaxRows);
    EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.pc < b.pc; }));
  }
  EXPECT_GT(loaded, 1000u);
}

}  // namespace
}  // namespace looptrace
