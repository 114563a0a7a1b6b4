// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "stacks/jit_name.h"
#include "stacks/perf_map.h"
#include "stacks/symbolizer.h"
#include "stacks_cpu_clock.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

class PerfMapTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("looptrace-perf-map-" + std::to_string(getpid()));
    fs::create_directories(directory_);
    path_ = directory_ / "perf-7.map";
  }
  void TearDown() override { fs::remove_all(directory_); }

  void append(const std::string& text) { std::ofstream(path_, std::ios::app | std::ios::binary) << text; }
  PerfMap::Source source(uid_t owner = getuid()) const { return {directory_, {"/perf-7.map"}, {owner}}; }
  static std::string name_at(const PerfMap& map, uint64_t address) {
    const auto found = map.find(address);
    return found ? std::string(found->name) : "-";
  }

  fs::path directory_, path_;
};

TEST_F(PerfMapTest, GrowsAndKeepsThePartialLine) {
  PerfMap map(source());
  map.refresh();
  EXPECT_EQ(map.size(), 0u);
  append("1000 10 first\n2000 20 sec");
  map.refresh();
  EXPECT_EQ(name_at(map, 0x1000), "first");
  EXPECT_EQ(name_at(map, 0x100f), "first");
  EXPECT_EQ(name_at(map, 0x1010), "-");
  EXPECT_EQ(name_at(map, 0x2000), "-");
  append("ond with blanks\n");
  map.refresh();
  EXPECT_EQ(name_at(map, 0x201f), "second with blanks");
}

// What was read is not read again: a map is megabytes long and grows all the time.
TEST_F(PerfMapTest, ReadsOnlyWhatWasAppended) {
  append("1000 10 first\n" + std::string(4096, '#') + "\n");
  PerfMap map(source());
  map.refresh();
  std::fstream(path_, std::ios::in | std::ios::out) << "1000 10 other";
  append("2000 10 second\n");
  map.refresh();
  EXPECT_EQ(name_at(map, 0x1000), "first");
  EXPECT_EQ(name_at(map, 0x2000), "second");
}

TEST_F(PerfMapTest, TheLatestWins) {
  append("1000 100 old\n1040 10 middle\n10f0 20 tail\n0xff0 0x20 head\n");
  PerfMap map(source());
  map.refresh();
  EXPECT_EQ(name_at(map, 0xff0), "head");
  EXPECT_EQ(name_at(map, 0x100f), "head");
  EXPECT_EQ(name_at(map, 0x1010), "old");
  EXPECT_EQ(name_at(map, 0x1040), "middle");
  EXPECT_EQ(name_at(map, 0x1050), "old");
  EXPECT_EQ(name_at(map, 0x10f0), "tail");
  EXPECT_EQ(name_at(map, 0x110f), "tail");
  append("1000 100 new\n");
  map.refresh();
  for (const uint64_t at : {0x1000u, 0x1040u, 0x10ffu}) EXPECT_EQ(name_at(map, at), "new");
  EXPECT_EQ(name_at(map, 0xfff), "head");
  EXPECT_EQ(name_at(map, 0x1100), "tail");
}

TEST_F(PerfMapTest, SkipsGarbage) {
  append("\n\nzzz\n1000\n1000 10\n1000 10 \nffffffffffffffff 10 wraps\n3000 0 empty\n-1 5 minus\n");
  append(std::string("\0\xff\x80\n", 4) + std::string(100000, 'a') + "\n" + "4000 10 " +
         std::string(3000, 'n') + "\n");
  append("5000 10 last\n");
  PerfMap map(source());
  map.refresh();
  EXPECT_EQ(map.size(), 2u);
  EXPECT_EQ(name_at(map, 0x5000), "last");
  EXPECT_EQ(name_at(map, 0x4000), std::string(512, 'n') + "…");
}

TEST_F(PerfMapTest, ReloadsWhenTruncatedOrReplaced) {
  append("1000 10 first\n2000 10 second\n");
  PerfMap map(source());
  map.refresh();
  fs::resize_file(path_, 0);
  append("3000 10 third\n");
  map.refresh();
  EXPECT_EQ(name_at(map, 0x1000), "-");
  EXPECT_EQ(name_at(map, 0x3000), "third");
  fs::resize_file(path_, 0);  // and grown past the old end between two looks
  append("4000 10 fourth and long\n5000 10 fifth\n");
  map.refresh();
  EXPECT_EQ(name_at(map, 0x3000), "-");
  EXPECT_EQ(name_at(map, 0x4000), "fourth and long");
  fs::remove(path_);
  map.refresh();
  EXPECT_EQ(map.size(), 0u);
}

TEST_F(PerfMapTest, TrustsOnlyTheOwner) {
  append("1000 10 f\n");
  if (getuid() == 0) {
    ASSERT_EQ(::chown(path_.c_str(), 12345, 12345), 0);
    PerfMap wrong(source(0));
    wrong.refresh();
    EXPECT_EQ(wrong.size(), 0u);
    PerfMap right(source(12345));
    right.refresh();
    EXPECT_EQ(right.size(), 1u);
    ASSERT_EQ(::chown(path_.c_str(), 0, 0), 0);
    PerfMap of_root(source(999));
    of_root.refresh();
    EXPECT_EQ(of_root.size(), 1u);
  } else {
    PerfMap wrong(source(getuid() + 1));
    wrong.refresh();
    EXPECT_EQ(wrong.size(), 0u);
  }
}

// A process in a pid namespace writes its map under the number that it has there.
TEST(PerfMapSource, IsThatOfItsOwnPidNamespace) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    pid_t child = -1;
    if (unshare(CLONE_NEWPID) == 0 && (child = fork()) == 0) {
      for (;;) pause();
    }
    _exit(write(ends[1], &child, sizeof child) == sizeof child ? pause() : 1);
  }
  pid_t child = -1;
  EXPECT_EQ(read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  const std::string outer = std::to_string(child);
  const auto source = PerfMap::source_of(child);
  if (child > 0) kill(child, SIGKILL);
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  close(ends[0]);
  close(ends[1]);
  if (child < 0) GTEST_SKIP() << "no pid namespace without root";
  EXPECT_EQ(source.root, "/proc/" + outer + "/root");
  EXPECT_EQ(source.candidates, (std::vector<std::string>{"/tmp/perf-1.map", "/tmp/perf-" + outer + ".map"}));
  EXPECT_NE(std::find(source.owners.begin(), source.owners.end(), getuid()), source.owners.end());
}

TEST_F(PerfMapTest, FollowsNoLinksAndOpensNoFifos) {
  std::ofstream(directory_ / "real") << "1000 10 f\n";
  fs::create_symlink("real", path_);
  PerfMap linked(source());
  linked.refresh();
  EXPECT_EQ(linked.size(), 0u);
  fs::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  PerfMap fifo(source());
  fifo.refresh();  // must not block
  EXPECT_EQ(fifo.size(), 0u);
}

TEST_F(PerfMapTest, KeepsItsLimits) {
  for (int i = 0; i < 1000; ++i) {
    char line[64];
    std::snprintf(line, sizeof line, "%x 8 f%d\n", 0x1000 + i * 16, i);
    append(line);
  }
  PerfMap few(source(), {1u << 20, 100, 512});
  few.refresh();
  EXPECT_LE(few.size(), 100u);
  PerfMap short_file(source(), {1000, 1u << 20, 512});
  short_file.refresh();
  EXPECT_LT(short_file.size(), 100u);
  EXPECT_GT(short_file.size(), 10u);
}

TEST_F(PerfMapTest, CostOfALargeMap) {
  std::string text;
  for (int i = 0; i < 100000; ++i) {
    char line[96];
    std::snprintf(line, sizeof line, "%x 80 JS:*function%d /srv/app/file%d.js:%d:3\n", 0x100000 + i * 128, i,
                  i % 100, i);
    text += line;
  }
  append(text);
  PerfMap map(source());
  const auto start = CpuClock::now();
  map.refresh();
  const std::chrono::duration<double, std::milli> took = CpuClock::now() - start;
  std::printf("100000 entries (%.1f MB of text) in %.1f ms, %.1f MB held\n",
              static_cast<double>(text.size()) * 1e-6, took.count(), static_cast<double>(map.bytes()) * 1e-6);
  EXPECT_EQ(map.size(), 100000u);
}

TEST(JitName, IsTakenApart) {
  const auto parse = [](std::string_view name) {
    Frame frame;
    parse_jit_name(name, frame);
    return frame;
  };
  Frame f = parse("JS:*hashAll /srv/app.js:13:17");
  EXPECT_EQ(f.function, "hashAll");
  EXPECT_EQ(f.file, "/srv/app.js");
  EXPECT_EQ(f.line, 13);
  EXPECT_TRUE(f.at_definition);
  EXPECT_EQ(f.origin, FrameOrigin::application);
  for (const char* newer : {"JS:o*hashAll /srv/app.js:13:17", "JS:+'hashAll /srv/app.js:13:17",
                            "JS:o*'hashAll /srv/app.js:13:17", "JS:hashAll /srv/app.js:13:17"}) {
    EXPECT_EQ(parse(newer).function, "hashAll") << newer;
  }
  EXPECT_EQ(parse("JS:open /srv/app.js:13:17").function, "open");
  f = parse("JSC-FTL: burns#CHbtBC");
  EXPECT_EQ(f.function, "burns");
  EXPECT_EQ(f.origin, FrameOrigin::application);
  EXPECT_EQ(parse("JSC-DFG: #CnDWEB").function, "(anonymous)");
  EXPECT_EQ(parse("JSC-Thunk: CallTrampoline").origin, FrameOrigin::runtime);
  f = parse("JS:~listOnTimeout node:internal/timers:524:25");
  EXPECT_EQ(f.file, "node:internal/timers");
  EXPECT_EQ(f.line, 524);
  EXPECT_EQ(f.origin, FrameOrigin::runtime);
  f = parse("LazyCompile:~ /a b/node_modules/x/y.js:1:2");
  EXPECT_EQ(f.function, "(anonymous)");
  EXPECT_EQ(f.file, "/a b/node_modules/x/y.js");
  EXPECT_EQ(f.origin, FrameOrigin::library);
  f = parse("py::handler:/srv/app.py");
  EXPECT_EQ(f.function, "handler");
  EXPECT_EQ(f.file, "/srv/app.py");
  EXPECT_EQ(parse("Builtin:InterpreterEntryTrampoline").origin, FrameOrigin::runtime);
  EXPECT_EQ(parse("LFoo;::bar").function, "LFoo;::bar");
  EXPECT_EQ(parse("Lio/netty/channel/Channel;::read").origin, FrameOrigin::library);
  f = parse("double com.example.Orders.price(long, java.lang.String)");
  EXPECT_EQ(f.function, "com.example.Orders.price");
  EXPECT_EQ(f.origin, FrameOrigin::application);
  EXPECT_EQ(parse("void java.lang.Thread.run()").origin, FrameOrigin::runtime);
  EXPECT_EQ(parse("Interpreter").origin, FrameOrigin::runtime);
  f = parse("instance void [App] Shop.Orders::Reserve(int32)[OptimizedTier1]");
  EXPECT_EQ(f.function, "Shop.Orders.Reserve");
  EXPECT_EQ(f.origin, FrameOrigin::application);
  f = parse("void [System.Private.CoreLib] System.Threading.Thread::Sleep(int32)[PreJIT]");
  EXPECT_EQ(f.function, "System.Threading.Thread.Sleep");
  EXPECT_EQ(f.origin, FrameOrigin::runtime);
  EXPECT_EQ(parse("ns::work(int, long)").function, "ns::work(int, long)");
  f = parse("TRACE_12::/srv/shop/price.lua:24");
  EXPECT_EQ(f.function, "TRACE_12");
  EXPECT_EQ(f.file, "/srv/shop/price.lua");
  EXPECT_EQ(f.line, 24);
  EXPECT_TRUE(f.at_definition);
  EXPECT_EQ(parse("TRACE_1::(string):3").line, 3);
  for (const char* other : {"TRACE_x::price.lua:24", "TRACE_12::price.lua", "TRACE_", "TRACE_1::"})
    EXPECT_EQ(parse(other).function, other);
  EXPECT_EQ(parse("[JIT] Shop#price").function, "Shop#price");
  EXPECT_EQ(parse("[JIT] ").function, "");
}

// The process's own map is found through /proc/PID/root and NSpid, and code in no file is named by it.
TEST(Symbolizer, NamesJitCodeByThePerfMap) {
  const std::string path = "/tmp/perf-" + std::to_string(getpid()) + ".map";
  std::ofstream(path) << "700000001000 100 JS:*work /srv/app.js:4:1\n";
  ObjectCache cache;
  const auto modules = ProcessModules::load(getpid(), cache);
  ASSERT_TRUE(modules);
  Symbolizer symbolizer({});
  std::vector<Frame> frames;
  symbolizer.user(getpid(), *modules, 0x700000001010, false, frames);
  symbolizer.user(getpid(), *modules, 0x700000009999, false, frames);
  fs::remove(path);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].kind, FrameKind::jit);
  EXPECT_EQ(frames[0].function, "work");
  EXPECT_EQ(frames[0].line, 4);
  EXPECT_TRUE(frames[0].at_definition);
  EXPECT_FALSE(frames[0].guessed);
  EXPECT_EQ(frames[1].function, "");
  EXPECT_TRUE(frames[1].guessed);
}

}  // namespace
}  // namespace looptrace
