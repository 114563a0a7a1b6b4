// SPDX-License-Identifier: Apache-2.0
//
// Symbols against readelf, separate debug files made with objcopy, positions against a program compiled here.
#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "base/files.h"
#include "base/free_with.h"
#include "looptrace.h"
#include "stacks/elf_file.h"
#include "stacks/elf_object.h"
#include "stacks/symbol_table.h"
#include "stacks/symbolizer.h"
#include "stacks_cpu_clock.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;
using Milliseconds = std::chrono::duration<double, std::milli>;

std::shared_ptr<ElfObject> open_object(const std::string& path) {
  auto object = ElfObject::from_fd(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  return object ? *object : nullptr;
}

// What a command prints; nothing if it fails.
std::optional<std::string> run(const std::string& command) {
  const std::unique_ptr<FILE, FreeWith<pclose>> pipe(popen((command + " 2>/dev/null").c_str(), "r"));
  std::string text;
  char chunk[65536];
  for (size_t n; pipe && (n = fread(chunk, 1, sizeof chunk, pipe.get())) > 0;) text.append(chunk, n);
  if (text.empty()) return std::nullopt;
  return text;
}

bool succeeds(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

class Symbols : public testing::TestWithParam<std::pair<const char*, const char*>> {};

// Every function that readelf lists is found at its start, under one of the names that readelf has for it.
TEST_P(Symbols, AgreeWithReadelf) {
  const std::string path = fs::canonical(GetParam().first);
  const auto listing = run("readelf -W " + std::string(GetParam().second) + " " + path);
  if (!listing) GTEST_SKIP() << "no readelf, or no " << path;
  const auto object = open_object(path);
  ASSERT_TRUE(object);

  const auto start = CpuClock::now();
  object->find_symbol(1);
  const Milliseconds built = CpuClock::now() - start;

  std::map<uint64_t, std::set<std::string>> names;
  for (const std::string_view line : split(*listing, '\n')) {
    unsigned long address;
    char type[16], bind[16], section[16], name[8192];  // Num: Value Size Type Bind Vis Ndx Name
    if (std::sscanf(std::string(line).c_str(), "%*s %lx %*s %15s %15s %*s %15s %8191s", &address, type, bind,
                    section, name) != 5)
      continue;
    if ((std::strcmp(type, "FUNC") != 0 && std::strcmp(type, "IFUNC") != 0) ||
        std::strcmp(section, "UND") == 0)
      continue;
    std::string plain = name;
    plain = plain.substr(0, plain.find('@'));  // .dynsym's have versions
    names[address].insert(plain);
  }
  ASSERT_GT(names.size(), 100u);
  size_t wrong = 0;
  for (const auto& [address, all] : names) {
    const auto first = object->find_symbol(address);
    if (first && all.count(std::string(first->name))) continue;
    if (++wrong <= 3) std::printf("  %#lx: %s\n", address, first ? std::string(first->name).c_str() : "none");
  }
  EXPECT_EQ(wrong, 0u);

  std::mt19937_64 random(1);
  const uint64_t low = names.begin()->first, span = names.rbegin()->first - low;
  const auto before = CpuClock::now();
  size_t found = 0;
  for (int i = 0; i < 100000; ++i) found += object->find_symbol(low + random() % span).has_value();
  const Milliseconds lookups = CpuClock::now() - before;

  const auto naming = CpuClock::now();
  size_t by_name = 0, asked = 0;
  for (const auto& [address, all] : names) {
    if (++asked > 1000) break;
    const auto symbol = object->find_by_name(*all.begin());
    by_name += symbol.has_value();
  }
  const Milliseconds named = CpuClock::now() - naming;
  std::printf(
      "%s: %zu functions, table in %.2f ms, %.3f us a lookup (%zu%% named), 1000 names in %.1f ms, "
      "%.1f MB held\n",
      path.c_str(), names.size(), built.count(), lookups.count() / 100, found / 1000, named.count(),
      static_cast<double>(object->bytes()) * 1e-6);
  EXPECT_EQ(by_name, std::min<size_t>(1000, names.size()));
}

INSTANTIATE_TEST_SUITE_P(Files, Symbols,
                         testing::Values(std::pair("/proc/self/exe", "-s"), std::pair("/usr/bin/node", "-s"),
                                         std::pair("/lib/x86_64-linux-gnu/libstdc++.so.6", "--dyn-syms"),
                                         std::pair("/usr/bin/python3.11", "--dyn-syms")));

TEST(ElfObject, KnowsWhatAFileIs) {
  const auto self = open_object("/proc/self/exe");
  ASSERT_TRUE(self);
  EXPECT_TRUE(self->is_main_program());
  EXPECT_EQ(self->name(), "exe");
  const auto libc = open_object("/lib/x86_64-linux-gnu/libc.so.6");
  if (!libc) GTEST_SKIP() << "no Debian libc on this machine";
  EXPECT_FALSE(libc->is_main_program());  // though it has an interpreter
  EXPECT_EQ(libc->name(), "libc.so.6");
  EXPECT_EQ(libc->build_id().size(), 40u);
  if (const auto notes = run("readelf -n /lib/x86_64-linux-gnu/libc.so.6")) {
    EXPECT_NE(notes->find(libc->build_id()), std::string::npos);
  }
  EXPECT_TRUE(libc->find_by_name("poll"));
  EXPECT_FALSE(libc->find_by_name("no such name"));
  EXPECT_TRUE(libc->section(".rodata").size() > 1000);
  EXPECT_TRUE(libc->section(".bss").empty());
  EXPECT_TRUE(libc->section(".nonesuch").empty());
}

TEST(ElfObject, ReadsDataByAddress) {
  const auto self = open_object("/proc/self/exe");
  ASSERT_TRUE(self);
  const auto rows = self->rows();
  ASSERT_FALSE(rows.empty());
  uint32_t magic = 0;
  EXPECT_TRUE(self->read(0, &magic, sizeof magic));
  EXPECT_EQ(std::memcmp(&magic, "\177ELF", 4), 0);
  EXPECT_FALSE(self->read(~uint64_t{0} - 2, &magic, sizeof magic));
  EXPECT_FALSE(self->read(uint64_t{1} << 40, &magic, sizeof magic));
  EXPECT_FALSE(self->bias(0x1000, uint64_t{1} << 40));
}

// What stays of the rows says where there is code, but for padding; what was dropped is built again.
TEST(ElfObject, DropsItsTablesAndBuildsThemAgain) {
  const auto object = open_object("/usr/lib/x86_64-linux-gnu/libc.so.6");
  ASSERT_TRUE(object);
  const std::vector<lt_row> rows = object->rows();
  const auto poll = object->find_by_name("poll");
  ASSERT_TRUE(poll);
  const uint64_t at = poll->start;
  const std::string name(object->find_symbol(at)->name);
  const size_t full = object->bytes();
  object->drop_idle();
  EXPECT_EQ(object->bytes(), full) << "it was used a moment ago";
  object->drop_idle();
  EXPECT_LT(object->bytes(), full - rows.size() * sizeof(lt_row));

  const size_t before = object->bytes();
  size_t code = 0;
  for (size_t i = 0; i + 1 < rows.size(); ++i) {
    const uint32_t size = rows[i + 1].pc - rows[i].pc;
    const bool gap = rows[i].kind == LT_ROW_GAP;
    if (gap && size < 64) continue;
    code += !gap;
    ASSERT_EQ(object->covers(rows[i].pc), !gap) << std::hex << rows[i].pc;
    ASSERT_EQ(object->covers(rows[i + 1].pc - 1), !gap) << std::hex << rows[i].pc;
  }
  EXPECT_GT(code, 10'000u);
  EXPECT_FALSE(object->covers(rows.front().pc - 1));
  EXPECT_FALSE(object->covers(rows.back().pc + 1));
  EXPECT_EQ(object->bytes(), before) << "that needed no rows";

  object->drop_tables();
  EXPECT_LT(object->bytes(), before);
  EXPECT_EQ(object->find_symbol(at)->name, name);
  EXPECT_EQ(object->find_by_name("poll")->start, at);
  EXPECT_TRUE(object->covers(at));
  ASSERT_EQ(object->rows().size(), rows.size());
  EXPECT_EQ(std::memcmp(object->rows().data(), rows.data(), rows.size() * sizeof(lt_row)), 0);
}

TEST(ElfObject, NamesPltStubs) {
  const auto listing = run("objdump -d -j .plt /proc/" + std::to_string(getpid()) + "/exe");
  if (!listing) GTEST_SKIP() << "no objdump";
  const auto self = open_object("/proc/self/exe");
  ASSERT_TRUE(self);
  size_t stubs = 0;
  for (const std::string_view line : split(*listing, '\n')) {  // "0000000000012030 <write@plt>:"
    const size_t open = line.find(" <"), close = line.find("@plt>:");
    if (open == std::string_view::npos || close == std::string_view::npos) continue;
    const std::string wanted(line.substr(open + 2, close - open - 2));
    const auto found = self->find_symbol(std::stoull(std::string(line.substr(0, open)), nullptr, 16) + 6);
    ASSERT_TRUE(found) << line;
    EXPECT_EQ(found->name, wanted + "@plt");
    ++stubs;
  }
  EXPECT_GT(stubs, 10u);
}

// A small program in a directory of its own, with and without its debug information.
class Compiled : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("looptrace-elf-" + std::to_string(getpid()));
    fs::create_directories(directory_);
    std::ofstream(file("prog.c")) << "volatile int g;\n"                                                  // 1
                                     "static inline __attribute__((always_inline)) int inner(int x) {\n"  // 2
                                     "  g = x;\n"                                                         // 3
                                     "  return g * 3;\n"                                                  // 4
                                     "}\n"                                                                // 5
                                     "static inline __attribute__((always_inline)) int middle(int x) {\n"
                                     "  int y = inner(x + 1);\n"  // 7
                                     "  return y + g;\n"          // 8
                                     "}\n"
                                     "static __attribute__((noinline)) int outer(int x) {\n"
                                     "  int z = middle(x);\n"  // 11
                                     "  g = z;\n"
                                     "  return z;\n"
                                     "}\n"
                                     "int main(int argc, char** argv) { (void)argv; return outer(argc); }\n";
  }
  void TearDown() override { fs::remove_all(directory_); }
  std::string file(const std::string& name) const { return directory_ / name; }
  bool compile(const std::string& options) const {
    return succeeds("cd " + directory_.string() + " && cc -O2 -g " + options + " prog.c -o prog");
  }

  // The store to g in inner(), which was inlined into middle() and that into outer().
  static void expect_inlined(ElfObject& object) {
    const auto outer = object.find_by_name("outer");
    const auto symbol = outer ? outer : find_function(object, "outer");
    ASSERT_TRUE(symbol);
    bool seen = false;
    for (uint64_t at = symbol->start; at < symbol->start + symbol->size; ++at) {
      const auto p = object.positions(at);
      if (p.size() != 3) continue;
      seen = true;
      EXPECT_EQ(p[0].function, "inner");
      EXPECT_TRUE(p[0].line == 3 || p[0].line == 4 || p[0].line == 2) << p[0].line;
      EXPECT_EQ(p[1].function, "middle");
      EXPECT_EQ(p[1].line, 7);
      EXPECT_EQ(p[2].function, "");
      EXPECT_EQ(p[2].line, 11);
      EXPECT_TRUE(p[0].file.ends_with("/prog.c")) << p[0].file;
    }
    EXPECT_TRUE(seen);
  }

  static std::optional<Symbol> find_function(ElfObject& object, std::string_view name) {
    for (uint64_t at = 0; at < 0x10000; ++at)
      if (const auto s = object.find_symbol(at); s && s->name == name) return s;
    return std::nullopt;
  }

  fs::path directory_;
};

TEST_F(Compiled, PositionsOfInlinedFunctions) {
  for (const char* options : {"", "-gdwarf-4", "-gz", "-g1"}) {
    if (!compile(options)) GTEST_SKIP() << "no C compiler";
    const auto object = open_object(file("prog"));
    ASSERT_TRUE(object);
    SCOPED_TRACE(options);
    expect_inlined(*object);
    EXPECT_GT(object->dwarf_bytes(), 0u);
    object->drop_units();
    expect_inlined(*object);
    object->drop_dwarf();
    EXPECT_EQ(object->dwarf_bytes(), 0u);
    expect_inlined(*object);
  }
}

// Of a large unit, what is needed to name frames is read ahead of them, and kept; and of its entries only
// those of a frame's function are read again.
TEST_F(Compiled, ALargeUnitIsLookedThroughOnce) {
  std::ofstream source(file("prog.c"), std::ios::app);
  for (int i = 0; i < 3000; ++i)
    source << "int f" << i << "(int x) {\n  if (x > g)\n    return outer(x);\n  return inner(x) + " << i
           << ";\n}\n";
  source.close();
  if (!compile("-O1")) GTEST_SKIP() << "no C compiler";
  auto ahead = open_object(file("prog"));
  const auto last = ahead->find_by_name("f2999");
  ASSERT_TRUE(last);
  const auto has_inlined = [&](ElfObject& object) {
    for (uint64_t at = last->start; at < last->start + last->size; ++at) {
      const auto p = object.positions(at);
      if (p.size() == 2 && p[0].function == "inner" && p[1].line > 15'000 - 20) return true;
    }
    return false;
  };
  // Without having waited.
  auto at_once = open_object(file("prog"));
  EXPECT_TRUE(has_inlined(*at_once));
  EXPECT_FALSE(at_once->lines_are_read()) << "there is more for those that do not wait";
  while (!at_once->read_on(true)) {
  }
  EXPECT_TRUE(has_inlined(*at_once));

  int pieces = 0;
  while (!ahead->read_on(true)) ++pieces;
  EXPECT_GE(pieces, 5);
  ahead->drop_units();
  const size_t before = ahead->dwarf_bytes();
  EXPECT_TRUE(has_inlined(*ahead));
  EXPECT_LT(ahead->dwarf_bytes() - before, 64u << 10);
  ahead->drop_units();
  EXPECT_LT(ahead->dwarf_bytes() - before, 4096u);
}

TEST_F(Compiled, WhatWasUnpackedStaysWhileIdle) {
  for (const char* options : {"", "-gz"}) {
    if (!compile(options)) GTEST_SKIP() << "no C compiler";
    const auto object = open_object(file("prog"));
    expect_inlined(*object);
    const size_t used = object->dwarf_bytes();
    object->drop_idle();
    EXPECT_EQ(object->dwarf_bytes(), used) << "it was used since the last time";
    object->drop_idle();
    SCOPED_TRACE(options);
    if (*options) {
      EXPECT_EQ(object->dwarf_bytes(), used);
    } else {
      EXPECT_LT(object->dwarf_bytes(), used);
    }
    expect_inlined(*object);
  }
}

// The functions are in a .dwo file, which is not read; the lines are in the program.
TEST_F(Compiled, SplitDwarfHasItsLines) {
  for (const char* options : {"-gsplit-dwarf", "-gsplit-dwarf -gdwarf-4"}) {
    if (!compile(options)) GTEST_SKIP() << "no C compiler that splits DWARF";
    SCOPED_TRACE(options);
    const auto object = open_object(file("prog"));
    const auto outer = find_function(*object, "outer");
    ASSERT_TRUE(outer);
    const auto p = object->positions(outer->start);
    ASSERT_EQ(p.size(), 1u);
    EXPECT_TRUE(p[0].line >= 3 && p[0].line <= 13) << p[0].line;
    EXPECT_TRUE(p[0].file.ends_with("/prog.c")) << p[0].file;
  }
}

// As dwz makes them of Debian's debug packages: two programs share what is the same in both.
TEST_F(Compiled, SupplementaryFile) {
  if (!compile("")) GTEST_SKIP() << "no C compiler";
  const std::string in = "cd " + directory_.string() + " && ";
  const std::string shared = file("root/shared.debug");
  // Enough of one type for dwz to find it worth while.
  std::ofstream(file("prog.c"), std::ios::app) << [] {
    std::string text = "struct shared_by_both {";
    for (int i = 0; i < 60; ++i) text += " int member_with_a_long_name_" + std::to_string(i) + ";";
    return text + " } variable;\n";
  }();
  ASSERT_TRUE(compile("") && succeeds(in + "cp prog other && mkdir -p root"));
  if (!succeeds(in + "dwz -m root/shared.debug -M /shared.debug prog other")) GTEST_SKIP() << "no dwz";
  const auto open = [&] {
    return ElfObject::from_fd(UniqueFd(::open(file("prog").c_str(), O_RDONLY)), "/prog", file("root"));
  };
  auto object = open();
  ASSERT_TRUE(object);
  expect_inlined(**object);

  // Whatever else is found there is not opened, and nothing waits for it.
  ASSERT_TRUE(succeeds(in + "rm root/shared.debug && mkfifo root/shared.debug"));
  auto without = open();
  ASSERT_TRUE(without);
  const auto outer = find_function(**without, "outer");
  ASSERT_TRUE(outer);
  EXPECT_TRUE((*without)->positions(outer->start).empty());
}

// As in musl's libc.so: its assembler has no sizes, and .dynsym tells of no function behind it.
TEST_F(Compiled, AnExportedNameWithoutASizeIsNotThatOfOthers) {
  std::ofstream(file("prog.c"), std::ios::app)
      << "__asm__(\".text\\n.globl sizeless\\n.type sizeless,@function\\nsizeless: ret\\n.fill "
         "64,1,0x90\\n\");\n";
  if (!compile("-rdynamic")) GTEST_SKIP() << "no C compiler";
  const auto whole = open_object(file("prog"));
  const auto symbol = whole->find_by_name("sizeless");
  ASSERT_TRUE(symbol);
  const auto named = whole->find_symbol(symbol->start + 8);
  ASSERT_TRUE(named) << "all functions are known";
  EXPECT_EQ(named->name, "sizeless");
  ASSERT_TRUE(succeeds("strip " + file("prog")));
  const auto stripped = open_object(file("prog"));
  EXPECT_FALSE(stripped->find_symbol(symbol->start + 8));
  EXPECT_TRUE(find_function(*stripped, "main"));
}

TEST_F(Compiled, SeparateFileByDebugLinkWithoutBuildId) {
  if (!compile("-Wl,--build-id=none")) GTEST_SKIP() << "no C compiler";
  const std::string in = "cd " + directory_.string() + " && ";
  if (!succeeds(in + "objcopy --only-keep-debug prog prog.debug && objcopy --strip-all "
                     "--add-gnu-debuglink=prog.debug prog"))
    GTEST_SKIP() << "no objcopy";
  const auto next_to_it = open_object(file("prog"));
  ASSERT_TRUE(next_to_it);
  EXPECT_EQ(next_to_it->build_id(), "");
  expect_inlined(*next_to_it);

  ASSERT_TRUE(succeeds(in + "mkdir .debug && mv prog.debug .debug/"));
  const auto in_directory = open_object(file("prog"));
  EXPECT_TRUE(find_function(*in_directory, "outer"));

  std::ofstream(file(".debug/prog.debug"), std::ios::app) << "x";  // the CRC no longer fits
  const auto changed = open_object(file("prog"));
  EXPECT_FALSE(find_function(*changed, "outer"));
  EXPECT_TRUE(changed->positions(0x1100).empty());
}

TEST_F(Compiled, SeparateFileIsFoundInTheProcessesRoot) {
  if (!compile("")) GTEST_SKIP() << "no C compiler";
  const std::string in = "cd " + directory_.string() + " && ";
  const std::string root = file("root");
  if (!succeeds(in + "objcopy --only-keep-debug prog prog.debug && objcopy --strip-all "
                     "--add-gnu-debuglink=prog.debug prog"
                     " && mkdir -p root/srv/bin root/elsewhere && mv prog.debug root/elsewhere/"
                     " && ln -s /elsewhere/prog.debug root/srv/bin/prog.debug"))
    GTEST_SKIP() << "no objcopy";
  auto object = ElfObject::from_fd(UniqueFd(::open(file("prog").c_str(), O_RDONLY)), "/srv/bin/prog", root);
  ASSERT_TRUE(object);
  expect_inlined(**object);
}

TEST_F(Compiled, DebugDataIsMergedWithDynamicSymbols) {
  if (!compile("-rdynamic")) GTEST_SKIP() << "no C compiler";
  const std::string in = "cd " + directory_.string() + " && ";
  if (!succeeds(
          in +
          "objcopy -S --keep-symbol=outer prog mini && objcopy --only-keep-debug mini mini && xz -k mini && "
          "objcopy --strip-all prog && objcopy --add-section .gnu_debugdata=mini.xz prog"))
    GTEST_SKIP() << "no objcopy or xz";
  const auto object = open_object(file("prog"));
  ASSERT_TRUE(object);
  EXPECT_TRUE(find_function(*object, "outer"));  // static: only in .gnu_debugdata
  EXPECT_TRUE(find_function(*object, "main"));   // only in .dynsym
  EXPECT_TRUE(object->positions(0x1100).empty());
}

TEST_F(Compiled, DynamicSymbolsWithoutSectionHeaders) {
  if (!compile("-rdynamic")) GTEST_SKIP() << "no C compiler";
  auto text = read_file(file("prog"));
  ASSERT_TRUE(text);
  std::vector<uint8_t> image(text->begin(), text->end());
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  header.e_shoff = header.e_shnum = header.e_shstrndx = 0;
  std::memcpy(image.data(), &header, sizeof header);
  const auto object = ElfObject::from_memory(std::move(image), "prog");
  ASSERT_TRUE(object);
  EXPECT_TRUE((*object)->find_by_name("main"));
  EXPECT_TRUE(find_function(**object, "main"));
  EXPECT_FALSE((*object)->rows().empty());
  EXPECT_EQ((*object)->build_id().size(), 40u);
}

// ---- hostile files

void use_everything(ElfObject& object) {
  object.build_id();
  object.is_main_program();
  object.bias(0x400000, 0x1000);
  const auto& rows = object.rows();
  for (size_t i = 1; i < rows.size(); ++i) ASSERT_LT(rows[i - 1].pc, rows[i].pc);
  for (uint64_t at = 0; at < 0x3000; at += 37) object.find_symbol(at);
  object.find_by_name("main");
  object.section(".text");
  char bytes[64];
  object.read(0x1000, bytes, sizeof bytes);
  for (uint64_t at = 0x1000; at < 0x1200; at += 61) object.positions(at);
  object.bytes();
}

TEST_F(Compiled, TruncatedFilesDoNoHarm) {
  if (!compile("-rdynamic")) GTEST_SKIP() << "no C compiler";
  const auto text = read_file(file("prog"));
  ASSERT_TRUE(text);
  size_t opened = 0, tried = 0;
  for (size_t size = 0; size < text->size(); size += 1 + size / 97, ++tried) {
    std::vector<uint8_t> image(text->begin(), text->begin() + static_cast<ptrdiff_t>(size));
    if (auto object = ElfObject::from_memory(std::move(image), "cut")) {
      ++opened;
      use_everything(**object);
    }
  }
  std::printf("%zu lengths, %zu opened\n", tried, opened);
}

TEST_F(Compiled, FlippedBytesDoNoHarm) {
  if (!compile("-rdynamic")) GTEST_SKIP() << "no C compiler";
  const auto text = read_file(file("prog"));
  ASSERT_TRUE(text);
  std::mt19937 random(3);
  const size_t headers = sizeof(Elf64_Ehdr) + 14 * sizeof(Elf64_Phdr);
  Elf64_Ehdr header;
  std::memcpy(&header, text->data(), sizeof header);
  const auto start = std::chrono::steady_clock::now();
  size_t tried = 0;
  for (; tried < 3000 && std::chrono::steady_clock::now() - start < std::chrono::seconds(20); ++tried) {
    std::vector<uint8_t> image(text->begin(), text->end());
    for (unsigned k = 0; k <= tried % 6; ++k) {
      size_t at = random() % image.size();
      if (tried % 3 == 0) at = random() % headers;
      if (tried % 3 == 1) at = header.e_shoff + random() % (image.size() - header.e_shoff);
      image[at] = static_cast<uint8_t>(random() % 4 ? random() : 0xff);
    }
    if (auto object = ElfObject::from_memory(std::move(image), "flipped")) use_everything(**object);
  }
  std::printf("%zu files\n", tried);
}

// The owner truncates the file while we hold it: short reads, no SIGBUS.
TEST_F(Compiled, TruncationUnderOurHandsDoesNoHarm) {
  if (!compile("-rdynamic")) GTEST_SKIP() << "no C compiler";
  const auto object = open_object(file("prog"));
  ASSERT_TRUE(object);
  fs::resize_file(file("prog"), 100);
  use_everything(*object);
  EXPECT_TRUE(object->rows().empty());
}

// A file with nothing but function symbols at these addresses.
std::shared_ptr<const ElfFile> with_symbols(const std::vector<uint64_t>& addresses, uint64_t size) {
  const uint64_t entries = sizeof(Elf64_Ehdr) + 4 * sizeof(Elf64_Shdr);
  std::vector<uint8_t> image(entries + addresses.size() * sizeof(Elf64_Sym) + 3);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_shoff = sizeof header;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 4;
  Elf64_Shdr sections[4]{};
  sections[1].sh_type = SHT_NOBITS;
  sections[1].sh_flags = SHF_EXECINSTR;
  sections[1].sh_addr = 0x1000;
  sections[1].sh_size = 1u << 31;
  sections[2].sh_type = SHT_SYMTAB;
  sections[2].sh_offset = entries;
  sections[2].sh_size = addresses.size() * sizeof(Elf64_Sym);
  sections[2].sh_link = 3;
  sections[3].sh_type = SHT_STRTAB;
  sections[3].sh_offset = image.size() - 3;
  sections[3].sh_size = 3;
  std::memcpy(image.data(), &header, sizeof header);
  std::memcpy(image.data() + sizeof header, sections, sizeof sections);
  std::memcpy(image.data() + image.size() - 3, "\0f", 3);
  for (size_t i = 0; i < addresses.size(); ++i) {
    const Elf64_Sym symbol{1, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), 0, 1, addresses[i], size};
    std::memcpy(image.data() + entries + i * sizeof symbol, &symbol, sizeof symbol);
  }
  auto file = ElfFile::from_memory(std::move(image), "symbols");
  EXPECT_TRUE(file);
  return std::move(*file);
}

// All symbols in one bucket: above the address, at one that has no size, and few far below it.
TEST(SymbolTable, AHostileOneIsNotSlow) {
  constexpr uint64_t kFar = 0x70000000, kMany = 3u << 20;
  const auto elapsed = [](const auto& work) {
    const auto start = CpuClock::now();
    work();
    return CpuClock::now() - start;
  };
  const auto look = [&](std::vector<uint64_t> addresses, uint64_t size, uint64_t at) {
    const auto file = with_symbols(addresses, size);
    SymbolTable table(*file);
    const auto building = elapsed([&] { ASSERT_TRUE(table.add(*file, SHT_SYMTAB)); });
    EXPECT_EQ(table.size(), addresses.size());
    const auto looking = elapsed([&] {
      for (int i = 0; i < 40; ++i) (void)table.find(at);
    });
    EXPECT_TRUE(looking < building || addresses.size() < kMany) << "of " << size << " bytes each";
    const auto found = table.find(at);  // its name lives as long as the table
    return found ? std::optional(std::pair(found->start, std::string(found->name))) : std::nullopt;
  };
  std::vector<uint64_t> addresses(kMany, 0x1800);
  addresses.push_back(kFar);
  look(addresses, 16, 0x1700);
  look(addresses, 0, 0x1800);
  for (size_t i = 0; i < kMany; ++i) addresses[i] = 0x1001 + i % 1024;
  look(addresses, 1, kFar - 1);
  const auto found = look({0x1000, 0x1800, kFar}, 0x40, 0x1810);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->first, 0x1800u);
  EXPECT_EQ(found->second, "f");
}

TEST(ElfObject, CostOfPositions) {
  const auto self = open_object("/proc/self/exe");
  const auto& rows = self->rows();
  auto start = CpuClock::now();
  self->positions(rows[rows.size() / 2].pc);
  const Milliseconds first = CpuClock::now() - start;
  std::mt19937 random(1);
  size_t with_line = 0, inlined = 0;
  start = CpuClock::now();
  for (int i = 0; i < 1000; ++i) {
    const auto p = self->positions(rows[random() % rows.size()].pc);
    with_line += !p.empty() && p.back().line > 0;
    inlined += p.size() > 1;
  }
  const Milliseconds rest = CpuClock::now() - start;
  std::printf(
      "positions of this test: first %.1f ms, then %.0f us each; %zu of 1000 with a line, %zu inlined; "
      "DWARF %.1f MB\n",
      first.count(), rest.count(), with_line, inlined, static_cast<double>(self->dwarf_bytes()) * 1e-6);
  EXPECT_GT(with_line, 100u);
}

}  // namespace
}  // namespace looptrace
