// SPDX-License-Identifier: Apache-2.0
// Real Node.js against its own account of where it is. Each major version is looked for on PATH, in
// LOOPTRACE_NODES ("18=/path/to/node,22=/path") and where `tests/provision runtimes` puts them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "runtimes/runtime.h"
#include "stacks/elf_object.h"
#include "stacks/symbolizer.h"
#include "stacks/user_unwinder.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return text;
  char chunk[256];
  while (size_t n = fread(chunk, 1, sizeof chunk, pipe)) text.append(chunk, n);
  pclose(pipe);
  return std::string(trim(text));
}

std::vector<std::string> nodes(int major) {
  std::vector<std::string> candidates;
  const std::string path = environment("PATH");
  for (const auto directory : split(path, ':')) candidates.push_back((fs::path(directory) / "node").string());
  const std::string given = environment("LOOPTRACE_NODES");
  for (const auto item : split(given, ',')) {
    if (const size_t at = item.find('='); at != std::string_view::npos)
      candidates.emplace_back(item.substr(at + 1));
  }
  std::string cache = environment("LOOPTRACE_TEST_CACHE");
  if (cache.empty()) cache = "/var/cache/looptrace-tests";
  candidates.push_back(cache + "/node-" + std::to_string(major) + "/bin/node");

  std::vector<std::string> found;
  std::set<std::string> seen;  // one of each release is enough
  for (const std::string& candidate : candidates) {
    std::error_code error;
    if (!fs::exists(candidate, error)) continue;
    const std::string version = output_of("'" + candidate + "' --version 2>/dev/null");
    if (!version.starts_with("v" + std::to_string(major) + ".") || !seen.insert(version).second) continue;
    found.push_back(fs::canonical(candidate, error).string());
  }
  return found;
}

// As node names it in its frames.
std::string victim_path(const char* name) {
  return fs::canonical(fs::path(TEST_DATA_DIR) / "../victims" / name).string();
}

struct TruthFrame {
  int line = 0;
  std::string function;
};

struct Busy {
  int line = 0, definition = 0;
  std::string function;
};

// A running victim script, killed at the end. What it printed up to "ready" is its truth.
class Victim {
 public:
  Victim(const std::string& node, const std::vector<std::string>& arguments) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      setpgid(0, 0);
      dup2(ends[1], STDOUT_FILENO);
      std::vector<char*> argv = {const_cast<char*>(node.c_str())};
      for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
      argv.push_back(nullptr);
      execv(node.c_str(), argv.data());
      _exit(127);
    }
    close(ends[1]);
    read_truth(ends[0]);
    close(ends[0]);
  }
  ~Victim() {
    if (pid_ <= 0) return;
    kill(-pid_, SIGKILL);  // with what it started
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  pid_t pid() const { return pid_; }
  bool ready() const { return ready_; }
  const std::string& version() const { return version_; }
  const std::vector<TruthFrame>& frames() const { return frames_; }
  const std::vector<Busy>& busy() const { return busy_; }

  // Until it sleeps, for good as far as one can see.
  bool wait_until_blocked() const {
    int asleep = 0;
    for (int i = 0; i < 300 && asleep < 10; ++i) {
      const auto stat = read_file("/proc/" + std::to_string(pid_) + "/stat");
      asleep = stat && stat->find(") S ") != std::string::npos ? asleep + 1 : 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return asleep >= 10;
  }

 private:
  void read_truth(int fd) {
    std::string text;
    char chunk[4096];
    ssize_t n = 0;
    while (!text.ends_with("ready\n") && (n = ::read(fd, chunk, sizeof chunk)) > 0) {
      text.append(chunk, static_cast<size_t>(n));
    }
    for (const auto line : split(text, '\n')) {
      const auto fields = split(line, '\t');
      const auto number = [&](size_t i) { return std::stoi(std::string(fields[i])); };
      if (fields[0] == "version") version_ = fields[1];
      if (fields[0] == "frame") frames_.push_back({number(1), std::string(fields[2])});
      if (fields[0] == "busy") busy_.push_back({number(1), number(2), std::string(fields[3])});
      if (fields[0] == "ready") ready_ = true;
    }
  }

  pid_t pid_ = -1;
  bool ready_ = false;
  std::string version_;
  std::vector<TruthFrame> frames_;
  std::vector<Busy> busy_;
};

struct Target {
  pid_t pid;
  ObjectCache cache;
  std::optional<ProcessModules> modules;
  std::optional<std::string> warning;
  std::unique_ptr<Runtime> runtime;

  explicit Target(pid_t id) : pid(id) {
    auto loaded = ProcessModules::load(pid, cache);
    if (!loaded) return;
    modules = std::move(*loaded);
    runtime = detect_runtime(pid, *modules, warning);
  }

  struct Sample {
    UnwoundStack stack;
    std::vector<lt_v8_frame> slots;
    std::vector<SharedFrame> names;
    user_regs_struct registers{};
  };

  // The main thread's stack by its registers, which ptrace tells; named while it is stopped.
  Sample sample(bool name = true) {
    Sample s;
    if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return s;
    ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr);
    waitpid(pid, nullptr, __WALL);
    ptrace(PTRACE_GETREGS, pid, nullptr, &s.registers);
    const auto& r = s.registers;
    s.stack = unwind(*modules, {r.rip, r.rsp, r.rbp}, memory_reader(pid), 2000);
    for (const auto& pointers : s.stack.uncovered) {
      if (const auto slot = runtime->read_slots(pointers)) s.slots.push_back(*slot);
    }
    if (name) s.names = names_of(s);
    ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
    return s;
  }

  std::vector<SharedFrame> names_of(const Sample& s) {
    const bool interrupted = static_cast<int64_t>(s.registers.orig_rax) < 0;
    std::vector<SharedFrame> names;
    for (auto& named :
         runtime->name_frames({s.stack.addresses, s.slots, interrupted, s.registers.r9, s.registers.r15})) {
      names.push_back(std::move(named.frame));
    }
    return names;
  }
};

class V8 : public testing::TestWithParam<int> {};

// Frames of the victim's own file.
std::vector<Frame> own_frames(const std::vector<SharedFrame>& names, const std::string& file) {
  std::vector<Frame> own;
  for (const auto& frame : names) {
    if (frame && frame->file == file) own.push_back(*frame);
  }
  return own;
}

void expect_frames(Target& target, const Victim& victim, const std::string& file) {
  const auto sample = target.sample();
  EXPECT_EQ(sample.stack.status, LT_UNWIND_END) << sample.stack.addresses.size() << " native frames";
  const auto frames = own_frames(sample.names, file);
  ASSERT_GE(frames.size(), victim.frames().size());
  for (size_t i = 0; i < victim.frames().size(); ++i) {
    SCOPED_TRACE("frame " + std::to_string(i));
    EXPECT_EQ(frames[i].function, victim.frames()[i].function);
    EXPECT_EQ(frames[i].line, victim.frames()[i].line) << frames[i].function;
    EXPECT_FALSE(frames[i].at_definition);
    EXPECT_EQ(frames[i].kind, FrameKind::javascript);
    EXPECT_EQ(frames[i].origin, FrameOrigin::application);
  }
  for (const auto& frame : sample.names) {
    if (!frame || frame->file == file) continue;
    EXPECT_TRUE(frame->file.starts_with("node:")) << frame->function << " " << frame->file;
    EXPECT_EQ(frame->origin, FrameOrigin::runtime);
    EXPECT_FALSE(frame->function.empty());
    EXPECT_GT(frame->line, 0) << frame->function;
  }
}

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

void print_cost(Target& target) {
  auto start = Clock::now();
  std::optional<std::string> warning;
  const auto fresh = detect_runtime(target.pid, *target.modules, warning);
  const double detect_us = microseconds_since(start);
  ASSERT_TRUE(fresh);
  auto sample = target.sample(false);
  const auto rename = [&](Runtime& runtime) {
    return runtime.name_frames({sample.stack.addresses, sample.slots, false, 0, 0});
  };
  double worst_us = 0;
  start = Clock::now();
  for (const lt_v8_frame& slot : sample.slots) {
    const auto one = Clock::now();
    (void)fresh->name_frames({sample.stack.addresses, {&slot, 1}, false, 0, 0});
    worst_us = std::max(worst_us, microseconds_since(one));
  }
  const double cold_us = microseconds_since(start);
  constexpr int kRounds = 200;
  start = Clock::now();
  for (int i = 0; i < kRounds; ++i) (void)rename(*fresh);
  const double warm_us = microseconds_since(start) / kRounds;
  const auto n = static_cast<double>(sample.slots.size());
  printf("%s: detect %.0f us, resolve %.1f us a new frame (worst %.0f us), %.2f us a known one, %zu frames\n",
         fresh->name().c_str(), detect_us, cold_us / n, worst_us, warm_us / n, sample.slots.size());
}

// Whatever the slots hold: an unnamed frame or one of the victim's, never a crash or a made-up one.
void survive_garbage(Target& target) {
  std::mt19937_64 random(23);
  std::vector<std::pair<uint64_t, uint64_t>> mappings;
  const auto maps = read_file("/proc/" + std::to_string(target.pid) + "/maps");
  for (const auto line : split(*maps, '\n')) {
    uint64_t start = 0, end = 0;
    if (sscanf(std::string(line).c_str(), "%lx-%lx rw", &start, &end) == 2) mappings.emplace_back(start, end);
  }
  const auto good = target.sample(false);
  ASSERT_FALSE(good.slots.empty());
  const auto any = [&] {
    const auto& [start, end] = mappings[random() % mappings.size()];
    const uint64_t inside = ((start + random() % (end - start)) & ~uint64_t{7}) + 1;
    return random() % 4 ? inside : random();
  };
  for (int i = 0; i < 20000; ++i) {
    lt_v8_frame frame = good.slots[random() % good.slots.size()];
    if (i % 5 == 0) frame.shared = any();
    if (i % 5 == 1) frame.scope = any();
    if (i % 5 == 2) frame.bytecodes = any();
    if (i % 5 == 3) frame.offset = random() % 2 ? random() << 32 : random();
    if (i % 5 == 4) frame = {static_cast<uint32_t>(random()), 0, any(), any(), any(), any()};
    const auto names =
        target.runtime->name_frames({good.stack.addresses, {&frame, 1}, i % 2 == 0, any(), any()});
    for (const auto& named : names) {
      EXPECT_FALSE(named.frame->function.empty());
      EXPECT_GE(named.frame->line, 0);
    }
    if (names.empty()) continue;
    if (i % 5 == 1 && frame.scope != good.slots[0].scope) {
      EXPECT_TRUE(std::any_of(good.slots.begin(), good.slots.end(), [&](const lt_v8_frame& g) {
        return g.scope == frame.scope;
      })) << "a function whose scope is another by now was believed";
    }
  }
}

std::string skip_reason(int major) {
  return "no Node.js " + std::to_string(major) + " here (tests/provision runtimes)";
}

TEST_P(V8, BlockedFunctions) {
  const auto found = nodes(GetParam());
  if (found.empty()) GTEST_SKIP() << skip_reason(GetParam());
  const std::string file = victim_path("js_nest.js");
  const std::string fifo = testing::TempDir() + "js_nest." + std::to_string(getpid());
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const auto& node : found) {
    for (const std::string mode : {"wait", "read", "child"}) {
      SCOPED_TRACE(node + " " + mode);
      const Victim victim(node, {file, mode, fifo});
      ASSERT_TRUE(victim.ready());
      ASSERT_EQ(victim.frames().size(), 12u);
      ASSERT_TRUE(victim.wait_until_blocked());
      Target target(victim.pid());
      ASSERT_TRUE(target.runtime) << target.warning.value_or("not recognised");
      EXPECT_EQ(target.runtime->name(), "node " + victim.version());
      expect_frames(target, victim, file);
      if (mode != "wait") continue;
      survive_garbage(target);
      print_cost(target);
    }
  }
  unlink(fifo.c_str());
}

TEST_P(V8, ModulesAndWideText) {
  const auto found = nodes(GetParam());
  if (found.empty()) GTEST_SKIP() << skip_reason(GetParam());
  const std::string file = victim_path("js_module.mjs");
  for (const auto& node : found) {
    SCOPED_TRACE(node);
    const Victim victim(node, {file});
    ASSERT_TRUE(victim.ready());
    ASSERT_TRUE(victim.wait_until_blocked());
    Target target(victim.pid());
    ASSERT_TRUE(target.runtime) << target.warning.value_or("not recognised");
    expect_frames(target, victim, file);
  }
}

// A hand-made translation: line N of app.ts became line N - 8 of app.js. Maps of other kinds: node_test.cpp.
TEST_P(V8, SourceMaps) {
  const auto found = nodes(GetParam());
  if (found.empty()) GTEST_SKIP() << skip_reason(GetParam());
  const fs::path root = fs::path(testing::TempDir()) / ("v8_map." + std::to_string(getpid()));
  fs::create_directories(root / "dist");
  const std::string file = (root / "dist" / "app.js").string();
  const std::string map = R"({"version":3,"sources":["../src/app.ts"],"names":[],"sourcesContent":[null],)"
                          R"("mappings":";;AAUA;AACA;AACA;AACA;AACA"})";
  const std::string script =
      "'use strict';\n// compiled\n"
      "function block() {\n"
      "  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);\n"
      "}\n"
      "require('fs').writeSync(1, 'ready\\n');\n"
      "block();\n";
  const auto write = [](const fs::path& path, const std::string& text) { std::ofstream(path) << text; };
  const std::string expected = (root / "src" / "app.ts").string();
  struct Form {
    const char* comment;
    bool mapped;
  };
  for (const auto& node : found) {
    for (const Form& form : {Form{"//# sourceMappingURL=app.js.map\n", true},
                             Form{"//# sourceMappingURL=/etc/passwd\n", false}}) {
      SCOPED_TRACE(node + " " + form.comment);
      write(file, script + form.comment);
      write(file + ".map", map);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      const Victim victim(node, {file});
      ASSERT_TRUE(victim.ready());
      ASSERT_TRUE(victim.wait_until_blocked());
      Target target(victim.pid());
      ASSERT_TRUE(target.runtime);
      const auto frames = own_frames(target.sample().names, form.mapped ? expected : file);
      ASSERT_EQ(frames.size(), 2u);
      EXPECT_EQ(frames[0].function, "block");
      EXPECT_EQ(frames[0].line, form.mapped ? 12 : 4);
      EXPECT_EQ(frames[1].line, form.mapped ? 15 : 7);
      if (!form.mapped) continue;
      // A map that was written since may belong to another build.
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      write(file + ".map", map);
      EXPECT_EQ(own_frames(target.sample().names, expected).size(), 2u) << "it was read already";
      Target later(victim.pid());
      EXPECT_EQ(own_frames(later.sample().names, file).size(), 2u);
    }
  }
  fs::remove_all(root);
}

struct Tally {
  int samples = 0, in_javascript = 0, exact = 0, definition = 0, unknown = 0, wrong = 0;
};

Tally sample_busy(const std::string& node, std::vector<std::string> flags, int samples) {
  Tally tally;
  const std::string file = victim_path("js_busy.js");
  flags.push_back(file);
  const Victim victim(node, flags);
  EXPECT_TRUE(victim.ready());
  if (!victim.ready()) return tally;
  Target target(victim.pid());
  EXPECT_TRUE(target.runtime) << target.warning.value_or("not recognised");
  if (!target.runtime) return tally;
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  for (int i = 0; i < samples; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + i % 3));
    const auto own = own_frames(target.sample().names, file);
    ++tally.samples;
    if (own.empty()) {
      ++tally.unknown;
      continue;
    }
    const Frame& leaf = own[0];
    const auto busy = std::find_if(victim.busy().begin(), victim.busy().end(),
                                   [&](const Busy& b) { return b.function == leaf.function; });
    if (busy == victim.busy().end()) {
      ++tally.wrong;
    } else if (leaf.at_definition) {
      ++(leaf.line == busy->definition ? tally.definition : tally.wrong);
    } else {
      ++(leaf.line == busy->line ? tally.exact : tally.wrong);
    }
  }
  return tally;
}

TEST_P(V8, RunningFunctions) {
  const auto found = nodes(GetParam());
  if (found.empty()) GTEST_SKIP() << skip_reason(GetParam());
  for (const auto& node : found) {
    SCOPED_TRACE(node);
    std::vector<std::string> interpreter = {"--no-opt", "--no-sparkplug"};
    if (GetParam() >= 20) interpreter.push_back("--no-maglev");
    std::vector<std::string> baseline = interpreter;
    baseline[1] = "--always-sparkplug";
    constexpr int kSamples = 150;
    const auto check = [&](const char* tier, const Tally& t) {
      printf("node %d %s: %d samples, %d exact, %d definition, %d without a frame, %d wrong\n", GetParam(),
             tier, t.samples, t.exact, t.definition, t.unknown, t.wrong);
      EXPECT_EQ(t.samples, kSamples) << tier;
      EXPECT_LE(t.wrong + t.unknown, 3) << tier;
    };
    const Tally interpreted = sample_busy(node, interpreter, kSamples);
    check("interpreted", interpreted);
    EXPECT_GE(interpreted.exact, kSamples * 7 / 10);
    check("baseline", sample_busy(node, baseline, kSamples));
    check("as it comes", sample_busy(node, {}, kSamples));
  }
}

TEST_P(V8, GarbageCollector) {
  const auto found = nodes(GetParam());
  if (found.empty()) GTEST_SKIP() << skip_reason(GetParam());
  for (const auto& node : found) {
    SCOPED_TRACE(node);
    const auto collecting = [&](const Victim& victim) {
      Target target(victim.pid());
      Symbolizer symbolizer(Symbolizer::Options{});
      int n = 0;
      for (int i = 0; i < 20; ++i) {
        const auto sample = target.sample();
        std::vector<Frame> frames;
        for (size_t f = 0; f < sample.stack.addresses.size(); ++f) {
          symbolizer.user(victim.pid(), *target.modules, sample.stack.addresses[f], f > 0, frames);
        }
        n += std::any_of(frames.begin(), frames.end(),
                         [&](const Frame& f) { return target.runtime->is_gc(f); });
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
      }
      return n;
    };
    const Victim victim(node, {"--expose-gc", victim_path("js_gc.js")});
    ASSERT_TRUE(victim.ready());
    EXPECT_GT(collecting(victim), 10);
    const Victim other(node, {victim_path("js_nest.js"), "wait"});
    ASSERT_TRUE(other.ready());
    ASSERT_TRUE(other.wait_until_blocked());
    EXPECT_EQ(collecting(other), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Node, V8, testing::Values(18, 20, 22, 24, 26),
                         [](const auto& info) { return std::to_string(info.param); });

}  // namespace
}  // namespace looptrace
