// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "looptrace.h"
#include "stacks/elf_object.h"
#include "stacks/frame_origin.h"
#include "stacks/proc_maps.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace symbolizer_test {
volatile int sink;
__attribute__((noinline)) void known_function(int x) { sink = x; }
}  // namespace symbolizer_test

namespace {

namespace fs = std::filesystem;

TEST(ProcMaps, Lines) {
  auto map = parse_maps_line("00400000-0b6f0000 r-xp 0076f000 fe:00 1234    /usr/bin/node");
  ASSERT_TRUE(map);
  EXPECT_EQ(map->start, 0x400000u);
  EXPECT_EQ(map->offset, 0x76f000u);
  EXPECT_EQ(map->inode, 1234u);
  EXPECT_TRUE(map->executable);
  EXPECT_EQ(map->path, "/usr/bin/node");
  EXPECT_EQ(map_files_name(map->start, map->end), "400000-b6f0000");
  map = parse_maps_line("7f00-8f00 rw-p 00000000 00:00 0 ");
  ASSERT_TRUE(map);
  EXPECT_FALSE(map->executable);
  EXPECT_EQ(map->path, "");
  EXPECT_EQ(parse_maps_line("1000-2000 r-xp 00000000 00:01 5 /a b\\012c (deleted)")->path,
            "/a b\nc (deleted)");
  for (const char* bad :
       {"", "x", "1000", "2000-1000 r-xp 0 0:0 0", "1000-2000", "1000-2000 r-xp", "1000-2000 r-xp 0 "})
    EXPECT_FALSE(parse_maps_line(bad)) << bad;
}

TEST(FrameOriginRules, ByPath) {
  const auto of = [](std::string_view path, bool program = false) { return module_origin(path, program); };
  EXPECT_EQ(of("/srv/app/server", true), FrameOrigin::application);
  EXPECT_EQ(of("/usr/bin/python3.11", true), FrameOrigin::runtime);
  EXPECT_EQ(of("/usr/bin/python3.11 (deleted)", true), FrameOrigin::runtime);
  EXPECT_EQ(of("/usr/bin/node", true), FrameOrigin::runtime);
  EXPECT_EQ(of("/usr/sbin/php-fpm8.2", true), FrameOrigin::runtime);
  EXPECT_EQ(of("/usr/bin/luajit-2.1.0-beta3", true), FrameOrigin::runtime);
  EXPECT_EQ(of("/srv/bin/ruby-server", true), FrameOrigin::application);
  EXPECT_EQ(of("/usr/bin/node_exporter", true), FrameOrigin::application);
  EXPECT_EQ(of("/usr/sbin/nginx", true), FrameOrigin::application);
  EXPECT_EQ(of("/usr/lib/x86_64-linux-gnu/libc.so.6"), FrameOrigin::runtime);
  EXPECT_EQ(of("/lib64/ld-linux-x86-64.so.2"), FrameOrigin::runtime);
  EXPECT_EQ(of("/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30"), FrameOrigin::runtime);
  EXPECT_EQ(of("/usr/lib/libpython3.11.so.1.0"), FrameOrigin::runtime);
  EXPECT_EQ(of("[vdso]"), FrameOrigin::runtime);
  EXPECT_EQ(of("/usr/lib/x86_64-linux-gnu/libpq.so.5.15"), FrameOrigin::library);
  EXPECT_EQ(of("/srv/venv/lib/python3.11/site-packages/x/y.so"), FrameOrigin::library);
  EXPECT_EQ(of("/usr/lib/python3.11/lib-dynload/_ssl.so"), FrameOrigin::runtime);
  EXPECT_EQ(of("/srv/node_modules/bcrypt/bcrypt.node"), FrameOrigin::library);
  EXPECT_EQ(of("/srv/app/plugin.so"), FrameOrigin::application);
  EXPECT_EQ(source_origin("/usr/include/c++/12/bits/stl_vector.h", FrameOrigin::application),
            FrameOrigin::runtime);
  EXPECT_EQ(source_origin("/srv/app/main.cpp", FrameOrigin::application), FrameOrigin::application);
  const auto source = [](const char* file) { return source_origin(file, FrameOrigin::application); };
  EXPECT_EQ(source("library/std/src/sys/thread/unix.rs"), FrameOrigin::runtime)
      << "as rust-lang.org's objects say";
  EXPECT_EQ(source("/rustc/59807616e1fa/library/core/src/ops/function.rs"), FrameOrigin::runtime);
  EXPECT_EQ(source("/usr/src/rustc-1.63.0/library/alloc/src/boxed.rs"), FrameOrigin::runtime) << "Debian's";
  EXPECT_EQ(java_origin("java.lang.Thread"), FrameOrigin::runtime);
  EXPECT_EQ(java_origin("io.netty.channel.nio.NioEventLoop"), FrameOrigin::library);
  EXPECT_EQ(java_origin("com.example.Orders"), FrameOrigin::application);
  EXPECT_EQ(source("src/main.rs"), FrameOrigin::application);
  EXPECT_EQ(source("/root/.cargo/registry/src/i-1949/tokio-1.38.0/src/lib.rs"), FrameOrigin::library);
  EXPECT_EQ(source("/usr/local/cargo/registry/src/i-1949/tokio-1.38.0/src/lib.rs"), FrameOrigin::library);
}

TEST(FrameOriginRules, OfGo) {
  const auto source = [](const char* file) { return source_origin(file, FrameOrigin::application); };
  for (const char* own : {"/usr/local/go/src/runtime/proc.go", "/usr/lib/go-1.19/src/net/http/server.go",
                          "/root/sdk/go1.22.0/src/syscall/asm_linux_amd64.s",
                          "/opt/hostedtoolcache/go/1.21.0/x64/src/time/sleep.go",
                          "/root/go/pkg/mod/golang.org/toolchain@v0.0.1-go1.22.0.linux-amd64/src/os/file.go",
                          "internal/poll/fd_unix.go", "vendor/golang.org/x/net/http2/hpack/hpack.go"})
    EXPECT_EQ(source(own), FrameOrigin::runtime) << own;
  for (const char* module :
       {"/root/go/pkg/mod/github.com/gorilla/mux@v1.8.0/mux.go", "github.com/gorilla/mux@v1.8.0/mux.go"})
    EXPECT_EQ(source(module), FrameOrigin::library) << module;
  for (const char* program :
       {"/srv/shop/main.go", "./main.go", "main.go", "example.com/shop/price/price.go",
        "/root/go/src/shop/main.go", "/srv/shop/src/log/log.go", "/srv/go/shop/net/loop.go", "time/sleep.c"})
    EXPECT_EQ(source(program), FrameOrigin::application) << program;
}

class SymbolizerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto loaded = ProcessModules::load(getpid(), cache_);
    ASSERT_TRUE(loaded) << loaded.error().message();
    modules_ = std::move(*loaded);
  }
  std::vector<Frame> frames(uint64_t address, bool is_return = false) {
    std::vector<Frame> out;
    symbolizer_.user(getpid(), modules_, address, is_return, out);
    return out;
  }

  ObjectCache cache_;
  ProcessModules modules_;
  Symbolizer symbolizer_{{}};
};

TEST_F(SymbolizerTest, NamesOurOwnFunction) {
  const auto address = reinterpret_cast<uint64_t>(&symbolizer_test::known_function);
  const auto f = frames(address);
  ASSERT_FALSE(f.empty());
  EXPECT_EQ(f.back().function, "looptrace::symbolizer_test::known_function(int)");
  EXPECT_EQ(f.back().kind, FrameKind::native);
  EXPECT_EQ(f.back().origin, FrameOrigin::application);
  EXPECT_EQ(f.back().module, fs::read_symlink("/proc/self/exe").filename());
  EXPECT_NE(f.back().file.find("stacks_symbolizer_test.cpp"), std::string::npos) << f.back().file;
  EXPECT_GT(f.back().line, 0);
  EXPECT_FALSE(f.back().guessed);
  EXPECT_EQ(f.back().build_id, modules_.find(address)->object->build_id());
  // The address behind the last byte of a call is not the next function.
  const auto as_return = frames(address, true);
  EXPECT_NE(as_return.back().function, f.back().function);
}

TEST_F(SymbolizerTest, LinesAreLookedUpOnlyWhereTheyAreAskedFor) {
  const auto address = reinterpret_cast<uint64_t>(&symbolizer_test::known_function);
  const auto object = modules_.find(address)->object;
  std::vector<Frame> name;
  symbolizer_.user(getpid(), modules_, address, false, name, Symbolizer::Detail::name);
  ASSERT_EQ(name.size(), 1u);
  EXPECT_EQ(name[0].function, "looptrace::symbolizer_test::known_function(int)");
  EXPECT_EQ(name[0].module, fs::read_symlink("/proc/self/exe").filename());
  EXPECT_EQ(name[0].line, 0);
  EXPECT_EQ(object->dwarf_bytes(), 0u);
  EXPECT_GT(frames(address).back().line, 0) << "the name alone is not kept";
  EXPECT_GT(object->dwarf_bytes(), 0u);
}

// libc, whose separate debug file is large and compressed.
class LargeFile : public SymbolizerTest {
 protected:
  void SetUp() override {
    SymbolizerTest::SetUp();
    for (const Module& module : modules_.all()) {
      if (module.object && module.object->name() == "libc.so.6") libc_ = &module;
    }
    if (!libc_) GTEST_SKIP() << "libc is not a file of its own here";
    ObjectCache other;
    const auto modules = ProcessModules::load(getpid(), other);
    ASSERT_TRUE(modules);
    const Module* const libc = modules->find(libc_->start);
    const auto yield = libc->object->find_by_name("sched_yield");
    if (!yield || libc->object->positions(yield->start).empty()) GTEST_SKIP() << "libc6-dbg is not installed";
  }
  Frame frame(const char* function, bool hurry) {
    const auto symbol = libc_->object->find_by_name(function);
    EXPECT_TRUE(symbol);
    std::vector<Frame> out;
    symbolizer_.user(getpid(), modules_, symbol->start + libc_->bias, false, out,
                     hurry ? Symbolizer::Detail::line_if_read : Symbolizer::Detail::line);
    EXPECT_EQ(out.back().function, function);
    return out.back();
  }

  const Module* libc_ = nullptr;
};

TEST_F(LargeFile, AHurriedFrameDoesNotWaitForItsLine) {
  const Frame hurried = frame("sched_yield", true);
  EXPECT_EQ(hurried.line, 0);
  EXPECT_EQ(hurried.file, "");
  EXPECT_TRUE(symbolizer_.has_more_to_read());
  // In pieces, none of which is much of it.
  const auto cpu_ns = [] {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1'000'000'000 + now.tv_nsec;
  };
  long longest = 0, sum = 0;
  int pieces = 0;
  for (; symbolizer_.has_more_to_read(); ++pieces) {
    ASSERT_LT(pieces, 10'000);
    const long before = cpu_ns();
    symbolizer_.read_on();
    const long taken = cpu_ns() - before;
    longest = std::max(longest, taken);
    sum += taken;
  }
  std::printf("%d pieces, %ld us, the longest %ld us\n", pieces, sum / 1000, longest / 1000);
  EXPECT_GE(pieces, 20);
  EXPECT_LT(longest, sum / 5);
  EXPECT_GT(frame("sched_yield", true).line, 0) << "that it had none was not kept";
  EXPECT_GT(frame("malloc", true).line, 0);
}

TEST_F(LargeFile, AFrameWithoutHurryHasItsLineAtOnce) {
  EXPECT_EQ(frame("sched_yield", true).line, 0);
  EXPECT_GT(frame("sched_yield", false).line, 0);
  EXPECT_GT(frame("malloc", true).line, 0);
  const size_t before = libc_->object->dwarf_bytes();
  libc_->object->drop_units();
  EXPECT_LT(libc_->object->dwarf_bytes(), before);
  EXPECT_GT(frame("qsort", true).line, 0) << "where the units are was not forgotten";
}

TEST_F(LargeFile, WhatIsWantedIsReadBeforeItsFirstFrame) {
  symbolizer_.want(libc_->object);
  symbolizer_.want(libc_->object);
  while (symbolizer_.has_more_to_read()) symbolizer_.read_on();
  EXPECT_GT(frame("sched_yield", true).line, 0);
}

TEST_F(SymbolizerTest, NamesLibc) {
  const auto libc = std::find_if(modules_.all().begin(), modules_.all().end(), [](const Module& m) {
    return m.path.find("libc.so.6") != std::string::npos;
  });
  if (libc == modules_.all().end()) GTEST_SKIP() << "libc is not a file of its own here";
  const auto yield = libc->object->find_by_name("sched_yield");
  ASSERT_TRUE(yield);
  EXPECT_EQ(yield->start + libc->bias, reinterpret_cast<uint64_t>(&::sched_yield));
  const auto f = frames(yield->start + libc->bias + 1);
  EXPECT_EQ(f.back().function, "sched_yield");
  EXPECT_EQ(f.back().module, "libc.so.6");
  EXPECT_EQ(f.back().origin, FrameOrigin::runtime);
  EXPECT_EQ(f.back().offset, yield->start + 1);
}

TEST_F(SymbolizerTest, NamesTheVdso) {
  const auto vdso = std::find_if(modules_.all().begin(), modules_.all().end(),
                                 [](const Module& m) { return m.path == "[vdso]"; });
  if (vdso == modules_.all().end() || !vdso->object) GTEST_SKIP() << "the vDSO cannot be read here";
  const auto symbol = vdso->object->find_by_name("__vdso_clock_gettime");
  ASSERT_TRUE(symbol);
  const auto f = frames(symbol->start + vdso->bias);
  EXPECT_NE(f.back().function.find("clock_gettime"), std::string::npos);
  EXPECT_EQ(f.back().origin, FrameOrigin::runtime);
  EXPECT_FALSE(vdso->object->rows().empty());
}

// The mapping has a path, "/dev/zero (deleted)", as that of PHP's JIT.
TEST_F(SymbolizerTest, CodeInSharedMemoryIsOfNoModule) {
  constexpr size_t kSize = 4096;
  void* const code = mmap(nullptr, kSize, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(code, MAP_FAILED);
  const auto address = reinterpret_cast<uint64_t>(code);
  const fs::path map = "/tmp/perf-" + std::to_string(getpid()) + ".map";
  std::ofstream(map) << std::hex << address << " 100 JIT$price_basket\n";
  SetUp();
  ASSERT_NE(modules_.find(address), nullptr);
  EXPECT_NE(modules_.find(address)->path, "");
  const auto named = frames(address + 0x10), unnamed = frames(address + 0x200);
  munmap(code, kSize);
  fs::remove(map);
  ASSERT_EQ(named.size(), 1u);
  EXPECT_EQ(named[0].function, "JIT$price_basket");
  EXPECT_EQ(named[0].kind, FrameKind::jit);
  EXPECT_EQ(named[0].module, "");
  EXPECT_FALSE(named[0].guessed);
  ASSERT_EQ(unnamed.size(), 1u);
  EXPECT_EQ(unnamed[0].module, "");
  EXPECT_EQ(unnamed[0].offset, address + 0x200) << "of no file";
  EXPECT_TRUE(unnamed[0].guessed);
}

TEST_F(SymbolizerTest, CostOfAStack) {
  std::vector<uint64_t> addresses;
  for (const Module& module : modules_.all())
    if (module.object)
      for (uint64_t at = module.start + 0x100; at < module.end && addresses.size() < 2000; at += 4099)
        addresses.push_back(at);
  auto start = std::chrono::steady_clock::now();
  for (const uint64_t at : addresses) frames(at);
  const std::chrono::duration<double, std::micro> first = std::chrono::steady_clock::now() - start;
  start = std::chrono::steady_clock::now();
  for (const uint64_t at : addresses) frames(at);
  const std::chrono::duration<double, std::micro> again = std::chrono::steady_clock::now() - start;
  std::printf(
      "%zu addresses: %.1f us each with lines, %.2f us from the cache; symbolizer %.2f MB, objects %.1f MB\n",
      addresses.size(), first.count() / addresses.size(), again.count() / addresses.size(),
      static_cast<double>(symbolizer_.bytes()) * 1e-6, static_cast<double>(cache_.bytes()) * 1e-6);
}

TEST_F(SymbolizerTest, TheCacheKeepsItsBudget) {
  Symbolizer::Options options;
  options.source_lines = false;
  options.cache_bytes = 64 << 10;
  Symbolizer small(options);
  const auto base = reinterpret_cast<uint64_t>(&symbolizer_test::known_function);
  std::vector<Frame> out;
  for (uint64_t i = 0; i < 20000; ++i) {
    out.clear();
    small.user(getpid(), modules_, base + i % 5000, false, out);
  }
  EXPECT_LT(small.bytes(), 256u << 10);
}

TEST_F(SymbolizerTest, KernelFrames) {
  std::vector<Frame> out;
  symbolizer_.kernel(0xffffffff81000010, out);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].kind, FrameKind::kernel);
  EXPECT_EQ(out[0].origin, FrameOrigin::runtime);
}

TEST(ObjectCacheTest, SharesObjectsAndReopensCheaply) {
  ObjectCache cache;
  auto start = std::chrono::steady_clock::now();
  const auto first = ProcessModules::load(getpid(), cache);
  const std::chrono::duration<double, std::micro> cold = std::chrono::steady_clock::now() - start;
  start = std::chrono::steady_clock::now();
  const auto second = ProcessModules::load(getpid(), cache);
  const std::chrono::duration<double, std::micro> warm = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  ASSERT_EQ(first->all().size(), second->all().size());
  for (size_t i = 0; i < first->all().size(); ++i) EXPECT_EQ(first->all()[i].object, second->all()[i].object);
  std::printf("%zu mappings: %.0f us, again %.0f us\n", first->all().size(), cold.count(), warm.count());
}

TEST(ObjectCacheTest, EvictsOnlyWhatNobodyUses) {
  const fs::path directory = fs::temp_directory_path() / ("looptrace-cache-" + std::to_string(getpid()));
  fs::create_directories(directory);
  ObjectCache cache(1);  // everything is over budget
  std::weak_ptr<ElfObject> held, dropped;
  ProcessModules keep;
  {
    auto modules = ProcessModules::load(getpid(), cache);
    ASSERT_TRUE(modules);
    keep = std::move(*modules);
    held = keep.all().front().object;
  }
  ASSERT_FALSE(held.expired());
  // A mapping of its own file, in use for a moment.
  const std::string path = directory / "copy";
  fs::copy_file("/proc/self/exe", path);
  std::ofstream(path, std::ios::app) << "different";
  const int fd = ::open(path.c_str(), O_RDONLY);
  void* const at = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  ::close(fd);
  ASSERT_NE(at, MAP_FAILED);
  fs::remove_all(directory);
  {
    auto modules = ProcessModules::load(getpid(), cache);
    ASSERT_TRUE(modules);
    const Module* module = modules->find(reinterpret_cast<uint64_t>(at));
    ASSERT_TRUE(module);
    if (!module->object) {
      ::munmap(at, 4096);
      GTEST_SKIP() << "a deleted file is readable with privileges only";
    }
    dropped = module->object;
  }
  ::munmap(at, 4096);
  const auto again = ProcessModules::load(getpid(), cache);
  ASSERT_TRUE(again);
  EXPECT_TRUE(dropped.expired());
  EXPECT_FALSE(held.expired());
  EXPECT_EQ(again->all().front().object, held.lock());
}

}  // namespace
}  // namespace looptrace
