// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "stacks/kernel_symbols.h"
#include "stacks_cpu_clock.h"

namespace looptrace {
namespace {

class KernelSymbolsTest : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = testing::TempDir() + "looptrace-kallsyms-" + std::to_string(getpid());
};

TEST_F(KernelSymbolsTest, NamesFunctionsAndModules) {
  const auto symbols =
      KernelSymbols::load(write("0000000000000000 A percpu\n"
                                "ffffffff81000000 T _stext\n"
                                "ffffffff81000000 t helper\n"
                                "ffffffff81000100 T do_epoll_wait\n"
                                "ffffffff810001f0 T __pfx_next\n"
                                "ffffffff81000200 W next\n"
                                "ffffffff81000300 T _etext\n"
                                "ffffffff82000000 D data\n"
                                "garbage\n\n"
                                "ffffffffc0001000 t net_rx\t[virtio_net]\n"
                                "ffffffffc0000000 t blk_rq\t[virtio_blk]\n"));
  EXPECT_FALSE(symbols.hidden());
  const auto name = [&](uint64_t at) {
    const auto f = symbols.find(at);
    return f ? std::string(f->name) + "+" + std::to_string(f->offset) + "[" + std::string(f->module) + "]"
             : "-";
  };
  EXPECT_EQ(name(0xffffffff81000008), "helper+8[]");
  EXPECT_EQ(name(0xffffffff81000104), "do_epoll_wait+4[]");
  EXPECT_EQ(name(0xffffffff810001f4), "do_epoll_wait+244[]");
  EXPECT_EQ(name(0xffffffff81000200), "next+0[]");
  EXPECT_EQ(name(0xffffffff81000400), "-");  // behind the text
  EXPECT_EQ(name(0xffffffffc0000010), "blk_rq+16[virtio_blk]");
  EXPECT_EQ(name(0xffffffffc0001010), "net_rx+16[virtio_net]");
  EXPECT_EQ(name(0xffffffffc0801010), "-");
  EXPECT_EQ(name(0x1000), "-");
}

TEST_F(KernelSymbolsTest, SaysWhenAddressesAreHidden) {
  EXPECT_TRUE(KernelSymbols::load(write("0000000000000000 T _stext\n0000000000000000 T foo\n")).hidden());
  EXPECT_FALSE(KernelSymbols::load(write("")).hidden());
  EXPECT_EQ(KernelSymbols::load("/nonexistent").size(), 0u);
}

TEST_F(KernelSymbolsTest, OfThisKernel) {
  const auto start = CpuClock::now();
  const auto symbols = KernelSymbols::load();
  const std::chrono::duration<double, std::milli> took = CpuClock::now() - start;
  if (symbols.hidden() || symbols.size() == 0) GTEST_SKIP() << "/proc/kallsyms has no addresses for us";
  std::mt19937_64 random(1);
  const uint64_t base = 0xffffffff81000000;
  size_t named = 0;
  const auto before = CpuClock::now();
  for (int i = 0; i < 100000; ++i) named += symbols.find(base + random() % (8u << 20)).has_value();
  const std::chrono::duration<double, std::micro> lookups = CpuClock::now() - before;
  std::printf("kernel: %zu functions in %.1f ms, %.2f MB, %.3f us a lookup (%zu of 100000 named)\n",
              symbols.size(), took.count(), static_cast<double>(symbols.bytes()) * 1e-6,
              lookups.count() / 100000, named);
  EXPECT_LT(symbols.bytes(), 8u << 20);
}

}  // namespace
}  // namespace looptrace
