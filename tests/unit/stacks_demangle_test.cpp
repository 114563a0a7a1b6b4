// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <random>

#include "stacks/elf_file.h"
#include "stacks/raw_symbols.h"
#include "stacks/symbolizer.h"
#include "stacks_cpu_clock.h"

namespace looptrace {
namespace {

TEST(Demangle, Itanium) {
  EXPECT_EQ(demangle("_ZN2v88internal6Invoke"), "_ZN2v88internal6Invoke");  // cut off: as it is
  EXPECT_EQ(demangle("_ZNKSt6vectorIiSaIiEE4sizeEv"), "std::vector<int, std::allocator<int> >::size() const");
  EXPECT_EQ(demangle("_Z3foov.part.0"), "foo() [clone .part.0]");
}

TEST(Demangle, OtherNamesStay) {
  for (const char* name : {"", "_", "poll", "_Z", "_R", "_ZN", "__libc_start_main", "Ruby", "_start", "_RYZ"})
    EXPECT_EQ(demangle(name), name);
  EXPECT_EQ(demangle(std::string("_Z") + std::string(100000, 'x')).size(), 100002u);
}

TEST(Demangle, RustLegacy) {
  EXPECT_EQ(demangle("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
  EXPECT_EQ(demangle("_ZN4core3fmt5write17h0123456789abcdefE.llvm.1234"), "core::fmt::write");
  EXPECT_EQ(demangle("_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$"
                     "3bar17h930b740aa94f1d3aE"),
            "<Test + 'static as foo::Bar<Test>>::bar");
  EXPECT_EQ(demangle("_ZN3foo17h05af221e174051e9E"), "foo");
  EXPECT_EQ(demangle("_ZN3foo3barEv"), "foo::bar()");  // C++
}

TEST(Demangle, RustV0) {
  const std::pair<const char*, const char*> cases[] = {
      {"_RNvC6_123foo3bar", "123foo::bar"},
      {"_RNvCs4fqI2P2rA04_7mycrate3foo", "mycrate::foo"},
      {"_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y",
       "utf8_idents::საჭმელად_გემრიელი_სადილი"},
      {"_RNCNCNgCs6DXkGYLi8lr_2cc5spawn00B5_", "cc::spawn::{closure#0}::{closure#0}"},
      {"_RNCINkXs25_NgCsbmNqQUJIY6D_4core5sliceINyB9_4IterhENuNgNoBb_"
       "4iter8iterator8Iterator9rpositionNCNgNpB9_"
       "6memchr7memrchrs_0E0Bb_",
       "<core::slice::Iter<u8> as core::iter::iterator::Iterator>::rposition::<core::slice::memchr::memrchr::"
       "{closure#1}>::{closure#0}"},
      {"_RINbNbCskIICzLVDPPb_5alloc5alloc8box_freeDINbNiB4_5boxed5FnBoxuEp6OutputuEL_ECs1iopQbuBiw2_3std",
       "alloc::alloc::box_free::<dyn alloc::boxed::FnBox<(), Output = ()>>"},
      {"_RMC0INtC8arrayvec8ArrayVechKj7b_E", "<arrayvec::ArrayVec<u8, 123>>"},
      {"_RMCs4fqI2P2rA04_13const_genericINtB0_8UnsignedKhb_E", "<const_generic::Unsigned<11>>"},
      {"_RMCs4fqI2P2rA04_13const_genericINtB0_6SignedKs98_E", "<const_generic::Signed<152>>"},
      {"_RMCs4fqI2P2rA04_13const_genericINtB0_6SignedKanb_E", "<const_generic::Signed<-11>>"},
      {"_RMCs4fqI2P2rA04_13const_genericINtB0_4BoolKb1_E", "<const_generic::Bool<true>>"},
      {"_RMCs4fqI2P2rA04_13const_genericINtB0_4CharKc76_E", "<const_generic::Char<'v'>>"},
      {"_RMCs4fqI2P2rA04_13const_genericINtB0_3FooKpE", "<const_generic::Foo<_>>"},
      {"_RINvC7mycrate3foolFUKCRhPmEuTxyzEE",
       "mycrate::foo::<i32, unsafe extern \"C\" fn(&u8, *const u32), "
       "(i64, u64, !)>"},
      {"_RINvC7mycrate3fooAhj10_SbE", "mycrate::foo::<[u8; 16], [bool]>"},
      {"_RNvC7mycrate3foo.llvm.1234", "mycrate::foo"},
      {"_RINvMNtNtCsgEmfK2I1SDS_4core3fmt2rtNtB3_8Argument9new_debugThAhj3_EECsjMaewn57Afh_1t",
       "<core::fmt::rt::Argument>::new_debug::<(u8, [u8; 3])>"},
  };
  for (const auto& [mangled, plain] : cases) EXPECT_EQ(demangle(mangled), plain) << mangled;
}

TEST(Demangle, BrokenRustNamesStay) {
  for (const char* name :
       {"_RNvC", "_RNvC99999foo3bar", "_RB_", "_RNvB_3foo", "_RINvC3foo3barKh", "_RNvC3foo3barX"})
    EXPECT_EQ(demangle(name), name);
}

// A number as both manglings write it: "_", "0_", "1_", ...
std::string sequence_id(size_t n, const std::string& digits) {
  if (n == 0) return "_";
  std::string id = "_";
  for (--n;; n /= digits.size()) {
    id.insert(id.begin(), digits[n % digits.size()]);
    if (n < digits.size()) return id;
  }
}

// Names in which every few letters double what is printed.
TEST(Demangle, BlowUpsAreBounded) {
  const auto start = CpuClock::now();
  // f(A, p<A, A>, p<p<A, A>, p<A, A>>, ...)
  const auto itanium = [](size_t steps) {
    std::string name = "_Z1f1A1pIS_S_E";
    for (size_t i = 0; i < steps; ++i) {
      const std::string last = "S" + sequence_id(2 + i, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
      name += "S0_I" + last + last + "E";
    }
    return name;
  };
  EXPECT_EQ(demangle(itanium(1)), "f(A, p<A, A>, p<p<A, A>, p<A, A> >)");
  EXPECT_EQ(demangle(itanium(60)), itanium(60));

  // b::<(u8, u8), (<the one before>, <the one before>), ...>
  const auto rust = [](size_t steps) {
    std::string name = "_RINvC1a1b";
    size_t previous = name.size() - 2;
    name += "ThhE";
    for (size_t i = 0; i < steps; ++i) {
      const std::string last =
          "B" + sequence_id(previous, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
      previous = name.size() - 2;
      name += "T" + last + last + "E";
    }
    return name + "E";
  };
  EXPECT_EQ(demangle(rust(1)), "a::b::<(u8, u8), ((u8, u8), (u8, u8))>");
  EXPECT_EQ(demangle(rust(60)), rust(60));
  const std::string deep = "_RINvC1a1b" + std::string(3000, 'S') + "hE";
  EXPECT_EQ(demangle(deep), deep);
  EXPECT_LT(CpuClock::now() - start, std::chrono::seconds(2));
}

TEST(Demangle, SurvivesRandomBytes) {
  std::mt19937 random(7);
  const std::string base =
      "_RNCINkXs25_NgCsbmNqQUJIY6D_4core5sliceINyB9_4IterhENuNgNoBb_"
      "4iter8iterator8Iterator9rpositionNCNgNpB9_"
      "6memchr7memrchrs_0E0Bb_";
  for (int i = 0; i < 20000; ++i) {
    std::string name = base;
    for (unsigned k = 0; k <= random() % 4; ++k)
      name[2 + random() % (name.size() - 2)] = "BNCITSEK_0129us"[random() % 15];
    if (random() % 3 == 0) name.resize(random() % name.size());
    demangle(name);
  }
}

// How many real names are refused as possible blow-ups, and what one costs.
TEST(Demangle, RealNamesAreNotRefused) {
  for (const char* path : {"/usr/bin/node", "/lib/x86_64-linux-gnu/libstdc++.so.6"}) {
    auto file = ElfFile::from_fd(UniqueFd(::open(path, O_RDONLY | O_CLOEXEC)), path);
    if (!file) {
      std::printf("skipped %s: not on this machine\n", path);
      continue;
    }
    const auto raw = load_symbols(**file, SHT_DYNSYM);
    ASSERT_TRUE(raw);
    size_t names = 0, refused = 0;
    const auto start = CpuClock::now();
    for (size_t i = 1; i < raw->size(); ++i) {
      const std::string_view name = raw->name(raw->at(i));
      if (!name.starts_with("_Z")) continue;
      ++names;
      if (demangle(name) == name) {
        if (++refused <= 3) std::printf("  %.*s\n", static_cast<int>(name.size()), name.data());
      }
    }
    const std::chrono::duration<double, std::micro> took = CpuClock::now() - start;
    std::printf("%s: %zu names, %zu refused, %.2f us each\n", path, names, refused, took.count() / names);
    EXPECT_LE(refused, names / 1000);
  }
}

}  // namespace
}  // namespace looptrace
