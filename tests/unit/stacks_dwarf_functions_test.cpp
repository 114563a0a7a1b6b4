// SPDX-License-Identifier: Apache-2.0
//
// What is inlined at an address, against a plain walk with libdw, in what compilers write; and units that
// they do not.
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/fd.h"
#include "stacks/dwarf_functions.h"
#include "stacks/elf_file.h"
#include "stacks_cpu_clock.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

// Where an entry larger than a piece is, more is given.
template <typename Reader>
void read_all(Reader& reader, const DwarfFunctions::Sections& sections, uint64_t piece) {
  for (uint64_t size = piece; !reader.done();) {
    const uint64_t from = reader.at();
    reader.read(sections, from + size);
    size = reader.at() == from ? size * 2 : piece;
  }
}

std::vector<uint64_t> inlined(const DwarfFunctions& functions, const DwarfFunctions::Sections& sections,
                              uint64_t address, uint64_t piece) {
  DwarfFunctions::Search search(functions, address);
  read_all(search, sections, piece);
  return search.inlined();
}

bool is_any(int tag, std::initializer_list<int> of) {
  return std::find(of.begin(), of.end(), tag) != of.end();
}

// True once the address was found below `parent`.
bool walk(Dwarf_Die parent, uint64_t address, std::vector<uint64_t>& path) {
  Dwarf_Die die;
  if (dwarf_child(&parent, &die) != 0) return false;
  do {
    const int tag = dwarf_tag(&die);
    const bool is_block = tag == DW_TAG_lexical_block;
    if (is_block || is_any(tag, {DW_TAG_subprogram, DW_TAG_inlined_subroutine, DW_TAG_try_block})) {
      if (dwarf_haspc(&die, address) > 0) {
        if (tag == DW_TAG_inlined_subroutine) path.push_back(dwarf_dieoffset(&die));
        walk(die, address, path);
        return true;
      }
      if (is_block && !dwarf_hasattr(&die, DW_AT_low_pc) && !dwarf_hasattr(&die, DW_AT_ranges) &&
          walk(die, address, path))
        return true;
    } else if (is_any(tag, {DW_TAG_namespace, DW_TAG_structure_type, DW_TAG_class_type, DW_TAG_union_type}) &&
               walk(die, address, path)) {
      return true;
    }
  } while (dwarf_siblingof(&die, &die) == 0);
  return false;
}

struct Compared {
  size_t units = 0, inlined = 0, different = 0;
};

// In each of the larger units some addresses.
Compared compare(const std::string& path, int addresses, uint64_t piece) {
  Compared result;
  auto file = ElfFile::from_fd(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  if (!file) return result;
  const auto load = [&](const char* name) {
    const ElfFile::Section* section = (*file)->find_section(name);
    return section ? (*file)->load(*section) : std::string();
  };
  const std::string info = load(".debug_info"), abbrev = load(".debug_abbrev"),
                    ranges = load(".debug_ranges"), rnglists = load(".debug_rnglists"),
                    addr = load(".debug_addr");
  const DwarfFunctions::Sections sections{info, abbrev, ranges, rnglists, addr};
  Dwarf* const dwarf = dwarf_begin((*file)->fd(), DWARF_C_READ);
  std::mt19937_64 random(3);
  Dwarf_Off at = 0, next = 0;
  size_t header = 0;
  for (; dwarf_nextcu(dwarf, at, &next, &header, nullptr, nullptr, nullptr) == 0; at = next) {
    DwarfFunctions functions(sections, at, next);
    read_all(functions, sections, piece);
    Dwarf_Die unit;
    if (!dwarf_offdie(dwarf, at + header, &unit)) continue;
    ++result.units;
    std::vector<std::pair<Dwarf_Addr, Dwarf_Addr>> parts;
    Dwarf_Addr base, low, high;
    for (ptrdiff_t i = 0; (i = dwarf_ranges(&unit, i, &base, &low, &high)) > 0;)
      if (low && low < high) parts.emplace_back(low, high);
    for (int i = 0; i < addresses && !parts.empty(); ++i) {
      const auto& [first, last] = parts[random() % parts.size()];
      const uint64_t address = first + random() % (last - first);
      std::vector<uint64_t> theirs;
      walk(unit, address, theirs);
      const auto ours = inlined(functions, sections, address, piece);
      result.inlined += theirs.size();
      if (ours != theirs && ++result.different < 5) ADD_FAILURE() << std::hex << address;
    }
  }
  dwarf_end(dwarf);
  return result;
}

TEST(DwarfFunctions, AreFoundAsByLibdw) {
  const fs::path directory = fs::temp_directory_path() / ("looptrace-functions-" + std::to_string(getpid()));
  fs::create_directories(directory);
  std::ofstream(directory / "a.cc") << R"(
volatile int g;
namespace {
struct Twice {
  struct Inner { static inline int of(int x) { for (int i = 0; i < x; ++i) g = g + i; return x * 2; } };
  __attribute__((noinline)) int run(int x) {
    if (x > 5) { int y = Inner::of(x); if (y > 20) throw y; return y; }
    return Inner::of(x + 1) + Inner::of(g);
  }
};
}
__attribute__((cold, noinline)) int rare(int x) { return Twice::Inner::of(x) + g; }
int often(int x) {
  if (__builtin_expect(x > 70, 0)) { g = x; return rare(x); }
  auto sum = [&](int y) __attribute__((noinline)) { return Twice::Inner::of(y) + x; };
  return sum(x) + Twice().run(x);
}
int main(int argc, char**) { try { return often(argc); } catch (int x) { return x; } }
)";
  size_t compared = 0;
  for (const char* compiler : {"c++", "clang++-14"}) {
    for (const char* options : {"-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5", "-gdwarf-5 -gdwarf64",
                                "-gdwarf-4 -ffunction-sections -Wl,--gc-sections", "-gdwarf-5 -no-pie"}) {
      SCOPED_TRACE(std::string(compiler) + " " + options);
      const std::string command = "cd " + directory.string() + " && " + compiler + " -O2 -g " + options +
                                  " a.cc -o a >/dev/null 2>&1";
      if (std::system(command.c_str()) != 0) continue;
      ++compared;
      for (const uint64_t piece : {uint64_t{1}, uint64_t{1} << 20}) {
        const Compared found = compare(directory / "a", 500, piece);
        EXPECT_GT(found.inlined, 30u);
        EXPECT_EQ(found.different, 0u);
      }
    }
  }
  fs::remove_all(directory);
  if (!compared) GTEST_SKIP() << "no C++ compiler";
}

TEST(DwarfFunctions, OfALargeProgramAreFoundAsByLibdw) {
  const Compared found = compare("/proc/self/exe", 20, 64u << 10);
  EXPECT_GT(found.units, 10u);
  EXPECT_EQ(found.different, 0u);
}

// A unit of version 4, from its kinds and entries.
struct Made {
  std::string abbrev, info, ranges;

  DwarfFunctions::Sections sections() const { return {info, abbrev, ranges, {}, {}}; }
  Made& kind(int number, int tag, bool has_children, std::initializer_list<std::pair<int, int>> attributes) {
    put(abbrev, number);
    put(abbrev, tag);
    abbrev += static_cast<char>(has_children);
    for (const auto& [attribute, form] : attributes) put(abbrev, attribute), put(abbrev, form);
    abbrev.append(2, '\0');
    return *this;
  }
  static void put(std::string& to, int value) {
    for (; value >= 0x80; value >>= 7) to += static_cast<char>(value | 0x80);
    to += static_cast<char>(value);
  }
  static std::string bytes(uint64_t value, size_t size) {
    return std::string(reinterpret_cast<const char*>(&value), size);
  }
  static std::string function(uint64_t low, uint32_t size, int number = 2) {
    return static_cast<char>(number) + bytes(low, 8) + bytes(size, 4);
  }
  static std::string end() { return std::string(1, '\0'); }
  static constexpr size_t kHeader = 11;

  // Kind 1 is the unit, 2 a function, 3 an inlined one, 4 one with ranges, 5 a namespace, 6 of no interest,
  // with a sibling.
  explicit Made(const std::string& entries) {
    const std::initializer_list<std::pair<int, int>> code = {{DW_AT_low_pc, DW_FORM_addr},
                                                             {DW_AT_high_pc, DW_FORM_data4}};
    kind(1, DW_TAG_compile_unit, true, {});
    kind(2, DW_TAG_subprogram, true, code).kind(3, DW_TAG_inlined_subroutine, false, code);
    kind(4, DW_TAG_subprogram, true, {{DW_AT_ranges, DW_FORM_sec_offset}});
    kind(5, DW_TAG_namespace, true, {{DW_AT_name, DW_FORM_string}});
    kind(6, DW_TAG_array_type, true, {{DW_AT_sibling, DW_FORM_ref4}});
    abbrev += '\0';
    info = bytes(kHeader - 4 + entries.size(), 4) + bytes(4, 2) + bytes(0, 4) + '\x8' + entries;
  }
  DwarfFunctions read() const {
    DwarfFunctions functions(sections(), 0, info.size());
    read_all(functions, sections(), 1u << 20);
    return functions;
  }
  size_t inlined_at(uint64_t address) const { return inlined(read(), sections(), address, 1u << 20).size(); }
};

const std::string kInlined = Made::function(0x1004, 4, 3);
const std::string kFunction = Made::function(0x1000, 16) + kInlined + Made::end();

TEST(DwarfFunctions, OfAMadeUnit) {
  const Made made("\1" + kFunction + "\5ns" + Made::end() + Made::function(0x2000, 8) +
                  Made::function(0x2000, 8, 3) + Made::end() + Made::end() + Made::end());
  EXPECT_EQ(made.inlined_at(0x1003), 0u);
  EXPECT_EQ(made.inlined_at(0x1004), 1u);
  EXPECT_EQ(made.inlined_at(0x1008), 0u);
  EXPECT_EQ(made.inlined_at(0x2007), 1u);
  EXPECT_EQ(made.inlined_at(0x2008), 0u);
  EXPECT_EQ(made.inlined_at(~uint64_t{0}), 0u);
}

// Where the linker has put equal functions together, and where it has left some out.
TEST(DwarfFunctions, OfOnePlaceTheFirstCounts) {
  const std::string same = Made::function(0x1000, 16) + Made::end();
  EXPECT_EQ(Made("\1" + kFunction + same + same + Made::end()).inlined_at(0x1004), 1u);
  EXPECT_EQ(Made("\1" + same + kFunction + Made::end()).inlined_at(0x1004), 0u);
  std::string many = kFunction;
  for (int i = 0; i < 1000; ++i) many += same;
  EXPECT_EQ(Made("\1" + many + Made::end()).inlined_at(0x1004), 1u);
  EXPECT_LT(Made("\1" + many + Made::end()).read().bytes(), 2000u);
  std::string left_out;
  for (int i = 0; i < 1000; ++i) left_out += Made::function(0, 0x2000) + Made::end();
  const Made made("\1" + left_out + kFunction + Made::end());
  EXPECT_EQ(made.inlined_at(0x1004), 1u);
  EXPECT_LT(made.read().bytes(), 2000u);
}

TEST(DwarfFunctions, SiblingsThatLeadBackOrOutAreNotFollowed) {
  for (const uint32_t sibling : {0u, 1u, 11u, 12u, 16u, 0x7fffffffu, 0xffffffffu}) {
    const Made made("\1\6" + Made::bytes(sibling, 4) + Made::function(0x1000, 16) + Made::end() +
                    Made::end() + kFunction + Made::end());
    EXPECT_EQ(made.inlined_at(0x1004), 1u) << sibling;
  }
}

TEST(DwarfFunctions, DepthAndCountsAreBounded) {
  std::string deep = "\1";
  for (int i = 0; i < 2'000'000; ++i) deep += std::string("\5\0", 2);
  std::string inner = "\1" + Made::function(0x1000, 16);
  for (int i = 0; i < 1000; ++i) inner += Made::function(0x1000, 16);
  for (int i = 0; i < 1000; ++i) inner += Made::end();
  std::string many = "\1";
  for (uint64_t i = 1; i < 400'000; ++i) many += Made::function(i * 16, 16) + Made::end();
  // Each has the same long list.
  Made lists("\1" + [] {
    std::string text;
    for (int i = 0; i < 20'000; ++i) text += "\4" + Made::bytes(0, 4) + Made::end();
    return text;
  }());
  for (uint64_t i = 1; i < 100'000; ++i) lists.ranges += Made::bytes(i * 16, 8) + Made::bytes(i * 16 + 8, 8);
  const auto start = CpuClock::now();
  EXPECT_EQ(Made(deep + kFunction).inlined_at(0x1004), 1u);
  EXPECT_EQ(Made(inner).inlined_at(0x1004), 0u);
  EXPECT_LT(Made(many).read().bytes(), 4u << 20);
  EXPECT_LT(lists.read().bytes(), 4u << 20);
  EXPECT_LT(CpuClock::now() - start, std::chrono::seconds(5));
}

TEST(DwarfFunctions, KindsThatCannotBeSteppedOver) {
  for (const int form : {0x02, 0x2d, 0x1f00, 0x3fff}) {
    Made made("\1" + kFunction + Made::end());
    made.abbrev.pop_back();
    made.kind(7, DW_TAG_variable, false, {{DW_AT_name, form}}).abbrev += '\0';
    EXPECT_EQ(made.inlined_at(0x1004), 0u) << form;
  }
  Made made("\1" + kFunction + Made::end());
  made.abbrev.pop_back();
  Made huge = made;
  huge.kind(1 << 28, DW_TAG_variable, false, {}).abbrev += '\0';
  EXPECT_LT(huge.read().bytes(), 10'000u);
  made.abbrev.append(1u << 20, '\xff');
  EXPECT_EQ(made.inlined_at(0x1004), 0u);
}

// Cut anywhere, or with other bytes, it is read to its end, and nothing else (for AddressSanitizer to see).
TEST(DwarfFunctions, CutAndFlippedBytesDoNoHarm) {
  const Made sound("\1" + kFunction + "\5ns" + Made::end() + "\4" + Made::bytes(0, 4) + kInlined +
                   Made::end() + "\6" + Made::bytes(80, 4) + Made::end() + Made::end() + Made::end());
  std::mt19937 random(7);
  size_t found = 0;
  for (int i = 0; i < 20'000; ++i) {
    Made made = sound;
    made.ranges = Made::bytes(0x1000, 8) + Made::bytes(0x1010, 8);
    std::string& in = i % 2 ? made.abbrev : made.info;
    for (int k = i % 3; k >= 0; --k) in[random() % in.size()] = static_cast<char>(i % 5 ? random() : 0xff);
    if (i % 7 == 0) in.resize(random() % in.size());
    in.shrink_to_fit();
    const DwarfFunctions functions = made.read();
    for (const uint64_t address : {0x1000, 0x1004, 0x100f}) {
      DwarfFunctions::Search search(functions, address);
      read_all(search, made.sections(), 16);
      found += search.inlined().size();
    }
  }
  EXPECT_GT(found, 1000u);
}

}  // namespace
}  // namespace looptrace
