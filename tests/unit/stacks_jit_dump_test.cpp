// SPDX-License-Identifier: Apache-2.0
#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "stacks/elf_object.h"
#include "stacks/jit_dump.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

struct Bytes {
  std::string text;
  Bytes& u32(uint32_t v) {
    text.append(reinterpret_cast<const char*>(&v), 4);
    return *this;
  }
  Bytes& u64(uint64_t v) {
    text.append(reinterpret_cast<const char*>(&v), 8);
    return *this;
  }
  Bytes& string(const std::string& v) {
    text += v + '\0';
    return *this;
  }
};

std::string header(uint32_t pid) {
  return Bytes().u32(0x4a695444).u32(1).u32(40).u32(EM_X86_64).u32(0).u32(pid).u64(1).u64(0).text;
}

std::string record(uint32_t id, const std::string& body) {
  return Bytes().u32(id).u32(static_cast<uint32_t>(16 + body.size())).u64(1).text + body;
}

std::string load(uint64_t start, uint64_t size, uint64_t index, const std::string& name) {
  return record(0, Bytes().u32(1).u32(1).u64(start).u64(start).u64(size).u64(index).string(name).text +
                       std::string(size, '\x90'));
}

std::string move(uint64_t from, uint64_t to, uint64_t size, uint64_t index) {
  return record(1, Bytes().u32(1).u32(1).u64(to).u64(from).u64(to).u64(size).u64(index).text);
}

/// This thread without the two capabilities that open what is in /proc/PID/map_files, while it lives.
class WithoutMapFiles {
 public:
  WithoutMapFiles() {
    syscall(SYS_capget, &header_, before_);
    __user_cap_data_struct less[2] = {before_[0], before_[1]};
    less[0].effective &= ~(1u << CAP_SYS_ADMIN);
    less[1].effective &= ~(1u << (CAP_CHECKPOINT_RESTORE - 32));
    done_ = syscall(SYS_capset, &header_, less) == 0;
  }
  ~WithoutMapFiles() { syscall(SYS_capset, &header_, before_); }
  bool done() const { return done_; }

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct before_[2]{};
  bool done_ = false;
};

class JitDumpTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("looptrace-jit-dump-" + std::to_string(getpid()));
    fs::create_directories(directory_);
    path_ = directory_ / "jit-7.dump";
  }
  void TearDown() override { fs::remove_all(directory_); }
  void append(const std::string& text) { std::ofstream(path_, std::ios::app | std::ios::binary) << text; }
  JitDump::Source source(uid_t owner = getuid(), uint32_t pid = 7) const { return {path_, {owner}, {pid}}; }
  static std::string at(const JitDump& dump, uint64_t address) {
    const auto found = dump.find(address);
    if (!found) return "-";
    std::string text(found->name);
    if (found->line) text += " " + std::string(found->file) + ":" + std::to_string(found->line);
    return text;
  }
  fs::path directory_, path_;
};

TEST_F(JitDumpTest, GrowsByWholeRecords) {
  JitDump dump(source());
  dump.refresh();
  EXPECT_EQ(dump.size(), 0u);
  const std::string second = load(0x2000, 0x20, 2, "second");
  append(header(7) + load(0x1000, 0x10, 1, "first") + second.substr(0, second.size() - 1));
  dump.refresh();
  EXPECT_EQ(at(dump, 0x1000), "first");
  EXPECT_EQ(at(dump, 0x100f), "first");
  EXPECT_EQ(at(dump, 0x1010), "-");
  EXPECT_EQ(at(dump, 0xfff), "-");
  EXPECT_EQ(at(dump, 0x2000), "-");
  append(second.substr(second.size() - 1) + record(77, "unknown") + record(3, ""));
  dump.refresh();
  EXPECT_EQ(at(dump, 0x201f), "second");
}

// The agent has four capabilities, of which none is enough for map_files.
TEST_F(JitDumpTest, IsReadWithoutTheRightToMapFiles) {
  const auto self = static_cast<uint32_t>(getpid());
  append(header(self) + load(0x1000, 0x10, 1, "first"));
  const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  void* mark = mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0);
  ASSERT_NE(mark, MAP_FAILED);
  ObjectCache cache;
  const auto modules = ProcessModules::load(getpid(), cache);
  ASSERT_TRUE(modules);
  const auto source = JitDump::source_of(getpid(), *modules);
  ASSERT_TRUE(source);
  const WithoutMapFiles confined;
  ASSERT_TRUE(confined.done());
  ASSERT_LT(open(source->path.c_str(), O_RDONLY | O_CLOEXEC), 0);
  JitDump dump(*source);
  dump.refresh();
  EXPECT_EQ(at(dump, 0x1000), "first");
  munmap(mark, 4096);
}

TEST_F(JitDumpTest, TheLatestWinsAndCodeMoves) {
  append(header(7) + load(0x1000, 0x100, 1, "old") + load(0x1080, 0x100, 2, "new") +
         load(0x3000, 0x10, 3, "wanderer") + move(0x3000, 0x4000, 0x20, 3) + move(0x1080, 0x5000, 0x100, 9));
  JitDump dump(source());
  dump.refresh();
  EXPECT_EQ(at(dump, 0x1000), "-");  // its end was overwritten: it is gone
  EXPECT_EQ(at(dump, 0x1080), "new");
  EXPECT_EQ(at(dump, 0x3000), "-");
  EXPECT_EQ(at(dump, 0x401f), "wanderer");
  EXPECT_EQ(at(dump, 0x5000), "-");  // not the number of what lies there
}

TEST_F(JitDumpTest, HasLines) {
  const std::string lines = record(2, Bytes()
                                          .u64(0x1000)
                                          .u64(3)
                                          .u64(0x1000)
                                          .u32(10)
                                          .u32(0)
                                          .string("/srv/a.js")
                                          .u64(0x1008)
                                          .u32(12)
                                          .u32(0)
                                          .string("\xff")
                                          .u64(0x1010)
                                          .u32(3)
                                          .u32(0)
                                          .string("/srv/b.js")
                                          .text);
  append(header(7) + lines + load(0x1000, 0x20, 1, "f") + lines + load(0x2000, 0x20, 2, "not its lines"));
  JitDump dump(source());
  dump.refresh();
  EXPECT_EQ(at(dump, 0x1007), "f /srv/a.js:10");
  EXPECT_EQ(at(dump, 0x1008), "f /srv/a.js:12");
  EXPECT_EQ(at(dump, 0x101f), "f /srv/b.js:3");
  EXPECT_EQ(at(dump, 0x2010), "not its lines");
}

TEST_F(JitDumpTest, IsReadAnewWhenReplaced) {
  append(header(7) + load(0x1000, 0x10, 1, "first") + load(0x3000, 0x10, 2, "more"));
  JitDump dump(source());
  dump.refresh();
  EXPECT_EQ(dump.size(), 2u);
  fs::remove(path_);
  append(header(7) + load(0x2000, 0x10, 1, "second"));
  dump.refresh();
  EXPECT_EQ(at(dump, 0x1000), "-");
  EXPECT_EQ(at(dump, 0x2000), "second");
}

TEST_F(JitDumpTest, OfOthersIsNotRead) {
  append(header(7) + load(0x1000, 0x10, 1, "first"));
  JitDump other_pid(source(getuid(), 8));
  other_pid.refresh();
  EXPECT_EQ(other_pid.size(), 0u);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(path_.c_str(), 12345, 12345), 0);
    JitDump other_owner(source(54321));
    other_owner.refresh();
    EXPECT_EQ(other_owner.size(), 0u);
  }
}

TEST_F(JitDumpTest, IsBounded) {
  std::string text = header(7);
  for (uint64_t i = 0; i < 100; ++i) text += load(0x1000 + 0x100 * i, 0x10, i, std::string(2000, 'n'));
  append(text);
  JitDump::Limits limits;
  limits.functions = 10;
  limits.name_bytes = 20;
  JitDump dump(source(), limits);
  dump.refresh();
  EXPECT_EQ(dump.size(), 10u);
  EXPECT_EQ(at(dump, 0x1000), std::string(20, 'n') + "…");
  limits.functions = 1000;
  limits.held_bytes = 1000;
  JitDump small(source(), limits);
  small.refresh();
  EXPECT_LT(small.size(), 10u);
  EXPECT_LT(small.bytes(), 2000u);
}

TEST_F(JitDumpTest, SurvivesAnything) {
  std::mt19937 random(5);
  const std::string good =
      header(7) + load(0x1000, 0x10, 1, "f") +
      record(2, Bytes().u64(0x2000).u64(~0ull).u64(0x2000).u32(1).u32(0).string("x").text) +
      load(0x2000, 0x10, 2, "g") + move(0x1000, 0x3000, 0x10, 1);
  for (int round = 0; round < 400; ++round) {
    std::string bad = good;
    for (int i = 0; i < 3; ++i) bad[40 + random() % (bad.size() - 40)] = static_cast<char>(random());
    std::ofstream(path_, std::ios::trunc | std::ios::binary)
        << bad.substr(0, 40 + random() % (bad.size() - 40));
    JitDump dump(source());
    dump.refresh();
    (void)at(dump, 0x1000 + random() % 0x3000);
    EXPECT_LT(dump.size(), 10u);
  }
}

// Node.js as it is: the file is found by its mapping, and V8's lines are those of the source.
TEST_F(JitDumpTest, OfNodeHasItsLines) {
  const std::string script = directory_ / "work.js";
  // V8 writes through a buffer: other functions push spin()'s record out of it.
  std::ofstream(script) << R"program(function spin(n) {
  let x = 0;
  for (let i = 0; i < n; i++) {
    x = (x * 31 + i) % 1000003;
  }
  return x;
}
let total = 0;
for (let i = 0; i < 300; i++) total += spin(100000);
for (let k = 0; k < 60; k++) total += new Function('n', 'let s = 0; for (let i = 0; i < n; i++) s += i * ' + k + '; return s')(60000);
for (;;) total += spin(100000);
)program";
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (chdir(directory_.c_str())) _exit(1);
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 1);
    dup2(null, 2);
    execlp("node", "node", "--perf-prof", script.c_str(), nullptr);
    _exit(127);
  }
  usleep(1500000);
  int status = 0;
  if (waitpid(pid, &status, WNOHANG) == pid) GTEST_SKIP() << "node --perf-prof does not run here";
  ObjectCache cache;
  const auto modules = ProcessModules::load(pid, cache);
  ASSERT_TRUE(modules);
  const auto source = JitDump::source_of(pid, *modules);
  std::optional<JitDump> dump;
  size_t lines[10] = {}, others = 0;
  if (source) {
    dump.emplace(*source);
    dump->refresh();
    Symbolizer symbolizer({});
    // Every address of every version of spin().
    for (const Module& m : modules->all()) {
      if (m.object || m.path.find("jit-") != std::string::npos) continue;
      for (uint64_t address = m.start; address < m.end; address += 4) {
        const auto entry = dump->find(address);
        if (!entry || entry->name.find("*spin") == std::string_view::npos) continue;
        std::vector<Frame> frames;
        symbolizer.user(pid, *modules, address, false, frames);
        ASSERT_EQ(frames.size(), 1u);
        if (frames[0].function == "spin" && frames[0].file.ends_with("/work.js") && frames[0].line >= 1 &&
            frames[0].line <= 9)
          ++lines[frames[0].line];
        else
          ++others;
      }
    }
  }
  kill(pid, SIGKILL);
  waitpid(pid, &status, 0);
  ASSERT_TRUE(source) << "no mapping of a jit-PID.dump";
  std::printf("%zu functions; bytes/4 of optimised spin() by line:", dump->size());
  for (int i = 1; i < 10; ++i) std::printf(" %d:%zu", i, lines[i]);
  std::printf(", others %zu\n", others);
  EXPECT_GT(dump->size(), 100u);
  // Node 20 spoils its lines (see jit_dump.cpp): then all have the function's own.
  EXPECT_GT(lines[1] + lines[3] + lines[4], 0u);
  EXPECT_EQ(lines[8] + lines[9] + others, 0u);
}

}  // namespace
}  // namespace looptrace
