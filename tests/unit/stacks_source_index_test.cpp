// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <numeric>
#include <random>
#include <thread>

#include "stacks/ahead.h"
#include "stacks/elf_file.h"
#include "stacks/elf_object.h"
#include "stacks/source_index.h"

namespace looptrace {
namespace {

std::shared_ptr<ElfObject> open_object(const std::string& path) {
  auto object = ElfObject::from_fd(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  EXPECT_TRUE(object) << object.error().message();
  return *object;
}

std::string told(const std::vector<ElfObject::Position>& positions) {
  std::string text;
  for (const auto& p : positions) text += p.function + " " + p.file + ":" + std::to_string(p.line) + "\n";
  return text;
}

void wait_for(ElfObject& object) {
  for (int i = 0; i < 1000 && !object.is_prepared(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(object.is_prepared());
}

// Every so many bytes of a file's code, by libdw and by the index.
void compare(const std::string& path, uint64_t addresses) {
  const auto by_libdw = open_object(path), by_index = open_object(path);
  Ahead ahead;
  by_index->prepare(ahead, true);
  wait_for(*by_index);
  auto file = ElfFile::from_fd(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  ASSERT_TRUE(file);
  const auto text = (*file)->find_section(".text")->header;
  size_t known = 0, inlined = 0, gaps = 0;
  for (uint64_t at = text.sh_addr; at < text.sh_addr + text.sh_size;
       at += std::max<uint64_t>(1, text.sh_size / addresses)) {
    const auto expected = by_libdw->positions(at);
    ASSERT_EQ(told(by_index->positions(at)), told(expected)) << std::hex << at;
    ++(expected.empty() ? gaps : known);
    inlined += expected.size() > 1 ? 1 : 0;
  }
  EXPECT_EQ(by_index->dwarf_bytes(), 0u) << "the index was not used";
  EXPECT_GT(by_libdw->dwarf_bytes(), 0u);
  EXPECT_GT(known, gaps);
  EXPECT_GT(inlined, 0u);
}

TEST(SourceIndex, TellsWhatDwarfTells) { compare(std::string(VICTIM_DIR) + "/victim_cpp_work", 600); }

TEST(SourceIndex, TellsWhatCompressedDwarfTells) {
  const std::string libc = "/lib/x86_64-linux-gnu/libc.so.6";
  if (!std::filesystem::exists("/usr/lib/debug/.build-id") || !std::filesystem::exists(libc))
    GTEST_SKIP() << "needs libc6-dbg";
  const auto object = open_object(libc);
  if (object->positions(object->find_by_name("poll")->start).empty()) GTEST_SKIP() << "needs libc6-dbg";
  compare(libc, 5000);
  Ahead ahead;
  object->prepare(ahead, true);
  wait_for(*object);
  const size_t with = object->bytes();
  object->drop_lines();
  const size_t lines = with - object->bytes();
  EXPECT_LT(lines, 2u << 20) << "for 13.8 MB of DWARF";
  std::printf("%.2f MB held\n", static_cast<double>(lines) * 1e-6);
}

TEST(SourceIndex, PiecesInAnyOrderAndGaps) {
  std::mt19937 random(1);
  constexpr uint32_t kPieces = 64, kPiece = 1 << 10, kUsed = 1000;
  struct Expected {
    uint32_t file = 0, line = 0, inlined = 0;
  };
  std::vector<Expected> at(kPieces * kPiece);
  SourceIndexBuilder builder(0x1000);
  const uint32_t files[] = {0, builder.text("a.c"), builder.text("b.c"), builder.text("c.c")};
  EXPECT_EQ(builder.text("b.c"), files[2]);
  const uint32_t outer = builder.inlined({builder.text("outer"), files[1], 7, 0});
  const uint32_t chains[] = {0, outer, builder.inlined({builder.text("inner"), files[2], 8, outer})};
  std::vector<uint32_t> pieces(kPieces);
  std::iota(pieces.begin(), pieces.end(), 0);
  std::shuffle(pieces.begin(), pieces.end(), random);
  for (const uint32_t piece : pieces) {
    // Every other one ends where the next begins.
    const uint32_t begin = piece * kPiece, end = begin + (piece % 2 ? kPiece : kUsed);
    Expected now;
    builder.begin();
    for (uint32_t pc = begin; pc < end; ++pc) {
      if (pc == begin || random() % 3 == 0) {
        now = {static_cast<uint32_t>(random() % 4),
               1 + static_cast<uint32_t>(random() % (pc % 9 ? 90 : 1u << 30)),
               static_cast<uint32_t>(random() % 3)};
        if (random() % 8 == 0) now = {};
        ASSERT_TRUE(builder.add(0x1000 + pc, files[now.file], now.line, chains[now.inlined]));
      }
      at[pc] = now;
    }
    ASSERT_TRUE(builder.add(0x1000 + end, 0, 0, 0));
  }
  EXPECT_FALSE(builder.add(0x1000 + (uint64_t{1} << 32), 1, 1, 0));
  const SourceIndex index = builder.finish();
  EXPECT_TRUE(index.positions(0xfff).empty());
  EXPECT_TRUE(index.positions(0).empty());
  EXPECT_TRUE(index.positions(0x1000 + at.size()).empty());
  const char* const names[] = {"", "a.c", "b.c", "c.c"};
  for (uint32_t pc = 0; pc < at.size(); ++pc) {
    const Expected& now = at[pc];
    const std::string here = std::string(names[now.file]) + ":" + std::to_string(now.line) + "\n";
    const std::string expected = now.inlined == 2   ? "inner " + here + "outer b.c:8\n a.c:7\n"
                                 : now.inlined == 1 ? "outer " + here + " a.c:7\n"
                                 : now.line         ? " " + here
                                                    : "";
    ASSERT_EQ(told(index.positions(0x1000 + pc)), expected) << pc;
  }
}

TEST(Ahead, AnObjectMayGoBeforeItIsRead) {
  Ahead ahead;
  for (int i = 0; i < 20; ++i) open_object("/proc/self/exe")->prepare(ahead, true);
  const auto last = open_object("/proc/self/exe");
  last->prepare(ahead, false);
  EXPECT_FALSE(last->is_prepared()) << "before twenty others?";
  const auto asked_again = open_object("/proc/self/exe");
  asked_again->prepare(ahead, true);
  asked_again->drop_tables();
  EXPECT_FALSE(asked_again->is_prepared());
}  // and who reads does not go on for those that are left

}  // namespace
}  // namespace looptrace
