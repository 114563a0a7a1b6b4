// SPDX-License-Identifier: Apache-2.0
#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "stacks/elf_file.h"
#include "stacks/packed_section.h"

namespace looptrace {
namespace {

constexpr uint64_t kSize = 3'000'000;

// Compresses to about half, and no two places are alike.
std::vector<uint8_t> some_text() {
  std::mt19937 random(7);
  std::vector<uint8_t> text(kSize);
  for (uint8_t& byte : text) byte = static_cast<uint8_t>('a' + random() % 16);
  return text;
}

// A file with a header and these bytes behind it.
std::unique_ptr<ElfFile> file_with(const std::vector<uint8_t>& bytes) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  std::vector<uint8_t> image(sizeof header);
  std::memcpy(image.data(), &header, sizeof header);
  image.insert(image.end(), bytes.begin(), bytes.end());
  auto file = ElfFile::from_memory(std::move(image), "packed");
  return file ? std::move(*file) : nullptr;
}

std::vector<uint8_t> packed(const std::vector<uint8_t>& text) {
  uLongf size = compressBound(text.size());
  std::vector<uint8_t> bytes(size);
  EXPECT_EQ(compress(bytes.data(), &size, text.data(), text.size()), Z_OK);
  bytes.resize(size);
  return bytes;
}

bool reads(PackedSection& section, const std::vector<uint8_t>& text, uint64_t from, uint64_t to) {
  std::vector<uint8_t> read(to - from);
  return section.read(from, to, read.data()) &&
         std::equal(read.begin(), read.end(), text.begin() + static_cast<ptrdiff_t>(from));
}

TEST(PackedSection, IsReadFromAnyPlace) {
  const auto text = some_text(), bytes = packed(text);
  const auto file = file_with(bytes);
  ASSERT_TRUE(file);
  PackedSection section(*file, sizeof(Elf64_Ehdr), bytes.size(), kSize);
  EXPECT_EQ(section.bytes(), 0u) << "nothing is read before it is asked for";
  std::mt19937 random(11);
  for (int i = 0; i < 200; ++i) {
    const uint64_t from = random() % kSize, to = std::min(kSize, from + random() % 50'000);
    ASSERT_TRUE(reads(section, text, from, to)) << from << " to " << to;
  }
  EXPECT_TRUE(reads(section, text, 0, kSize));
  EXPECT_TRUE(reads(section, text, kSize, kSize));
  EXPECT_FALSE(section.read(kSize, kSize + 1, nullptr));
  EXPECT_LT(section.bytes(), kSize / 2) << "that is why it is not kept unpacked";
}

TEST(PackedSection, ABrokenOneEndsWhereItIsBroken) {
  const auto text = some_text();
  auto bytes = packed(text);
  {
    const auto file = file_with(bytes);
    PackedSection section(*file, sizeof(Elf64_Ehdr), bytes.size(), uint64_t{1} << 40);
    std::vector<uint8_t> read(16);
    EXPECT_FALSE(section.read(kSize + 10, kSize + 20, read.data())) << "the header promised more";
  }
  const uint64_t good = kSize / 4;
  {
    const auto file = file_with({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(bytes.size() / 2)});
    PackedSection section(*file, sizeof(Elf64_Ehdr), bytes.size(), kSize);
    EXPECT_TRUE(reads(section, text, 0, good));
    EXPECT_FALSE(reads(section, text, 0, kSize));
    EXPECT_TRUE(reads(section, text, good, good + 100)) << "after a failure, too";
  }
  std::fill(bytes.begin() + static_cast<ptrdiff_t>(bytes.size() / 2), bytes.end(), uint8_t{0xff});
  const auto file = file_with(bytes);
  PackedSection section(*file, sizeof(Elf64_Ehdr), bytes.size(), kSize);
  EXPECT_TRUE(reads(section, text, 0, good));
  EXPECT_FALSE(reads(section, text, good, kSize));
}

}  // namespace
}  // namespace looptrace
