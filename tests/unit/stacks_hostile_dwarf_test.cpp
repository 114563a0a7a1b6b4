// SPDX-License-Identifier: Apache-2.0
//
// Files whose DWARF is made to harm: what libdw and we read of them stays within bounds.
#include <elf.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/files.h"
#include "stacks/elf_file.h"
#include "stacks/elf_object.h"
#include "stacks_cpu_clock.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

constexpr auto kSoon = std::chrono::milliseconds(500);
constexpr const char* kSource =
    "volatile int g;\n"
    "static inline __attribute__((always_inline)) int inner(int x) { g = x; return g * 3; }\n"
    "int outer(int x) { return inner(x) + 1; }\n"
    "int main(int argc, char** argv) { (void)argv; return outer(argc); }\n";

class HostileDwarf : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    const fs::path directory = fs::temp_directory_path() / ("looptrace-dwarf-" + std::to_string(getpid()));
    fs::create_directories(directory);
    std::ofstream(directory / "prog.c") << kSource;
    const std::string command = "cd " + directory.string() + " && cc -O2 -g -gdwarf-4 prog.c -o prog 2>&1";
    if (std::system(command.c_str()) == 0) {
      const auto text = read_file(directory / "prog");
      if (text) image_.assign(text->begin(), text->end());
    }
    fs::remove_all(directory);
    if (image_.empty()) GTEST_SKIP() << "no C compiler";
    info_ = section(".debug_info");
    line_ = section(".debug_line");
    const auto object = open(image_);
    ASSERT_TRUE(object);
    const auto outer = object->find_symbol(find(*object, "outer"));
    ASSERT_TRUE(outer);
    outer_ = {outer->start, outer->start + outer->size};
    ASSERT_EQ(inlined(*object), 1u);
  }
  static uint64_t find(ElfObject& object, std::string_view name) {
    for (uint64_t at = 0; at < 0x10000; ++at)
      if (const auto s = object.find_symbol(at); s && s->name == name) return at;
    return 0;
  }
  static std::shared_ptr<ElfObject> open(std::vector<uint8_t> image) {
    auto object = ElfObject::from_memory(std::move(image), "hostile");
    return object ? *object : nullptr;
  }
  /// How many functions are inlined in outer(), at most.
  size_t inlined(ElfObject& object) const {
    size_t most = 0;
    for (uint64_t at = outer_.first; at < outer_.second; ++at)
      most = std::max(most, object.positions(at).size());
    return most ? most - 1 : 0;
  }
  static int line_of(ElfObject& object, uint64_t address) {
    const auto positions = object.positions(address);
    return positions.empty() ? 0 : positions.back().line;
  }
  std::string section(const std::string& name) const {
    const auto file = ElfFile::from_memory(image_, "hostile");
    const ElfFile::Section* found = (*file)->find_section(name);
    return found ? (*file)->load(*found) : std::string();
  }
  /// With another content of a section, whose header says that it is `size`, once it is unpacked.
  std::vector<uint8_t> with(const std::string& name, const std::string& content, uint64_t size) const {
    std::vector<uint8_t> image = image_;
    const auto file = ElfFile::from_memory(image, "hostile");
    const auto& sections = (*file)->sections();
    const auto found =
        std::find_if(sections.begin(), sections.end(), [&](const auto& s) { return s.name == name; });
    Elf64_Shdr header = found->header;
    image.resize((image.size() + 7) & ~size_t{7});
    header.sh_offset = image.size();
    std::vector<uint8_t> bytes(content.begin(), content.end());
    if (GetParam()) {
      uLongf packed = compressBound(content.size());
      bytes.resize(sizeof(Elf64_Chdr) + packed);
      const Elf64_Chdr head{ELFCOMPRESS_ZLIB, 0, size, 1};
      std::memcpy(bytes.data(), &head, sizeof head);
      EXPECT_EQ(compress2(bytes.data() + sizeof head, &packed,
                          reinterpret_cast<const uint8_t*>(content.data()), content.size(), 1),
                Z_OK);
      bytes.resize(sizeof head + packed);
      header.sh_flags |= SHF_COMPRESSED;
    }
    header.sh_size = GetParam() ? bytes.size() : size;
    image.insert(image.end(), bytes.begin(), bytes.end());
    const size_t at =
        (*file)->header().e_shoff + static_cast<size_t>(found - sections.begin()) * sizeof header;
    std::memcpy(&image[at], &header, sizeof header);
    return image;
  }
  std::vector<uint8_t> with(const std::string& name, const std::string& content) const {
    return with(name, content, content.size());
  }
  template <typename Number>
  static std::string patched(std::string content, size_t at, Number number) {
    std::memcpy(&content[at], &number, sizeof number);
    return content;
  }

  std::vector<uint8_t> image_;
  std::string info_, line_;
  std::pair<uint64_t, uint64_t> outer_;
};
INSTANTIATE_TEST_SUITE_P(, HostileDwarf, testing::Bool(),
                         [](const auto& info) { return info.param ? "packed" : "plain"; });

TEST_P(HostileDwarf, SoundSectionsAreRead) {
  const auto object = open(with(".debug_info", info_));
  ASSERT_TRUE(object);
  EXPECT_EQ(inlined(*object), 1u);
  EXPECT_EQ(line_of(*object, outer_.first), 3);
}

// A hundred times as large as it looks, where it is packed: a unit that is too large to be read for one
// frame has its lines.
TEST_P(HostileDwarf, AHugeUnitIsNotReadForOneFrame) {
  constexpr size_t kHuge = 36u << 20, kKept = 4u << 20;
  std::string info = patched(info_, 0, static_cast<uint32_t>(kHuge - 4));
  info.resize(kHuge);
  const auto image = with(".debug_info", info);
  if (GetParam()) {
    EXPECT_LT(image.size(), 1u << 20);
  }
  const auto object = open(image);
  ASSERT_TRUE(object);
  const auto start = CpuClock::now();
  for (uint64_t at = outer_.first; at < outer_.second; ++at) {
    const auto positions = object->positions(at);
    ASSERT_EQ(positions.size(), 1u);
    EXPECT_GT(positions[0].line, 0);
  }
  EXPECT_LT(CpuClock::now() - start, kSoon);
  EXPECT_LT(object->dwarf_bytes(), kKept);
}

// Its header promises more than there is, or than we are ready to read.
TEST_P(HostileDwarf, AnEmptyPromise) {
  for (const char* name : {".debug_info", ".debug_line", ".debug_str", ".debug_abbrev"}) {
    for (const uint64_t size : {uint64_t{100} << 20, uint64_t{1} << 40, ~uint64_t{0}, uint64_t{3}}) {
      SCOPED_TRACE(std::string(name) + " " + std::to_string(size));
      const auto object = open(with(name, section(name), size));
      ASSERT_TRUE(object);
      const auto start = CpuClock::now();
      for (uint64_t at = outer_.first; at < outer_.second; ++at) EXPECT_LE(object->positions(at).size(), 2u);
      EXPECT_LT(CpuClock::now() - start, kSoon);
      EXPECT_EQ(object->find_symbol(outer_.first)->name, "outer");
    }
  }
}

TEST_P(HostileDwarf, AUnitThatPointsOutside) {
  const auto size = static_cast<uint32_t>(info_.size());
  for (const uint32_t length :
       {0u, 1u, 7u, size - 5, size - 3, size + 1, 0x0fffffffu, 0xffffffefu, 0xffffffffu}) {
    SCOPED_TRACE(length);
    const auto object = open(with(".debug_info", patched(info_, 0, length)));
    ASSERT_TRUE(object);
    EXPECT_LE(inlined(*object), 1u);
    EXPECT_EQ(object->find_symbol(outer_.first)->name, "outer");
  }
  constexpr size_t kAbbreviations = 6;
  for (const uint32_t at : {1u, 0x100u, 0xffffu, 0xfffffffeu, 0xffffffffu}) {
    SCOPED_TRACE(at);
    const auto object = open(with(".debug_info", patched(info_, kAbbreviations, at)));
    ASSERT_TRUE(object);
    EXPECT_LE(inlined(*object), 1u);
  }
  for (const uint32_t length : {0u, 1u, static_cast<uint32_t>(line_.size()), 0xffffffefu, 0xffffffffu}) {
    SCOPED_TRACE(length);
    const auto object = open(with(".debug_line", patched(line_, 0, length)));
    ASSERT_TRUE(object);
    EXPECT_EQ(inlined(*object), 1u) << "these do not need the lines";
    EXPECT_EQ(object->positions(outer_.first).back().file, "");
  }
}

TEST_P(HostileDwarf, FlippedBytesDoNoHarm) {
  std::mt19937 random(5);
  const auto start = CpuClock::now();
  size_t tried = 0, found = 0;
  for (; tried < 600 && CpuClock::now() - start < std::chrono::seconds(5); ++tried) {
    const char* const name = std::array{".debug_info", ".debug_line", ".debug_abbrev"}[tried % 3];
    std::string content = section(name);
    for (unsigned k = 0; k <= tried % 4; ++k)
      content[random() % content.size()] = static_cast<char>(random() % 4 ? random() : 0xff);
    auto image = with(name, content);
    // And of what is packed, the packing.
    if (GetParam() && tried % 2) image[image.size() - 1 - random() % 64] ^= 0x55;
    const auto object = open(std::move(image));
    ASSERT_TRUE(object);
    for (uint64_t at = outer_.first; at < outer_.second; ++at) found += !object->positions(at).empty();
  }
  std::printf("%zu files, %zu positions\n", tried, found);
  EXPECT_GT(found, 0u);
}

}  // namespace
}  // namespace looptrace
