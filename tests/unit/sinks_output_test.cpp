// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "base/files.h"
#include "record/culprit.h"
#include "record/fingerprint.h"
#include "record/format.h"
#include "record_rules.h"
#include "sinks/check_report.h"
#include "sinks/folded.h"
#include "sinks/jsonl.h"
#include "sinks/listing.h"
#include "sinks/other_json.h"
#include "sinks/pretty.h"
#include "sinks/redacting.h"
#include "sinks/schema.h"
#include "sinks_sample.h"

namespace looptrace {
namespace {

using Json = nlohmann::json;

const HostInfo kHost = {"n1", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"};

// The stall of the contract's example, with a second stack, wait and runner-up.
Stall sample() {
  Stall s = contract_stall();
  s.service = "web";
  Wait lock;
  lock.cause = Cause::lock;
  lock.syscall = "futex";
  lock.count = 1;
  lock.duration_ns = lock.longest_ns = 100'000;
  lock.target.emplace();
  lock.target->kind = "futex";
  lock.target->address = 0x7f10;
  lock.woken_by = Peer{101, 109, "db-pool"};
  lock.held_by.emplace();
  lock.held_by->thread = *lock.woken_by;
  lock.held_by->frames = {
      frame(FrameKind::python, "match", "/usr/lib/python3.11/re.py", 190, "re", FrameOrigin::runtime),
      frame(FrameKind::python, "hog", "/srv/pool.py", 12, "pool", FrameOrigin::application)};
  s.waits.push_back(lock);
  Stack blocked;
  blocked.state = StackState::blocked;
  blocked.weight_ns = 203'100'000;
  blocked.samples = 1;
  Frame poll = frame(FrameKind::native, "poll", "", 0, "libc.so.6", FrameOrigin::runtime);
  poll.offset = 0x11f8a0;
  poll.build_id = "ab12";
  Frame kernel = frame(FrameKind::kernel, "do_sys_poll", "", 0, "", FrameOrigin::runtime);
  blocked.frames = {kernel, poll, *s.culprit,
                    frame(FrameKind::python, "handle", "/srv/app.py", 20, "app", FrameOrigin::application)};
  Stack running;
  running.weight_ns = 1'200'000;
  running.samples = 3;
  running.truncated = true;
  running.frames = {
      frame(FrameKind::inlined, "hash", "/usr/include/hash.h", 12, "libapp.so", FrameOrigin::library)};
  running.frames[0].guessed = true;
  running.frames[0].at_definition = true;
  s.stacks = {blocked, running};
  TaskInfo& task = s.task.emplace();
  task.name = "Task-7";
  task.coroutine = "RequestHandler._execute";
  task.file = "/usr/lib/python3/tornado/web.py";
  task.line = 1735;
  task.handler = "Orders.get";
  task.created_at = {"finish", "/srv/app.py", 31};
  s.preempted_by = Peer{40, 44, "stress"};
  s.fingerprint = fingerprint(s, choose_culprit(s));
  return s;
}

WindowRecord sample_window() {
  WindowRecord w;
  w.time_ns = sample().time_ns;
  w.number = 29'923'740;
  w.start_ns = 1'795'424'340'000'000'000;
  w.end_ns = w.start_ns + 60'000'000'000;
  w.active = true;
  w.probability = 0.05;
  w.attached_ns = 60'000'000'000;
  w.threshold_ns = 50'000'000;
  w.stalls = {4000, 400'000'000'000, 200};
  w.dropped = {{"sampled", 3800}, {"stall_ring_full", 2}};
  w.cut = 1;
  w.strata = {{"web", Cause::network, {3990, 399'000'000'000, 190}},
              {"", Cause::cpu, {10, 1'000'000'000, 10}}};
  w.strata_dropped = 3;
  w.capped = {{"487dec0fc78afe78", {3900, 390'000'000'000, 100}}};
  w.own_cpu_ns = 120'000'000;
  w.bpf_run_ns = 3'000'000;
  w.bpf_estimated = true;
  w.resident_bytes = 30u << 20;
  w.budget = {"fewer_stacks", 2, "cpu", 0.005, 0.0062, 128u << 20};
  w.threads = 12;
  return w;
}

LoopRecord sample_loop() {
  LoopRecord r;
  r.time_ns = sample().time_ns;
  r.interval_ns = 10'000'000'000;
  r.hooked_ns = 4'000'000'000;
  r.process = sample().process;
  r.thread_id = 101;
  r.thread_name = "server";
  r.container = sample().container;
  r.loop = sample().loop;
  r.iterations = 1234;
  r.busy_ns = 2'500'000'000;
  r.idle_ns = 7'500'000'000;
  r.iteration = Percentiles{1, 2, 3, 4, 5};
  r.wakeup_delay = Percentiles{1, 2, 3, 4, 5};
  r.stalls = 3;
  r.stall_ns = 600'000'000;
  r.unconfirmed = 1;
  return r;
}

StartRecord sample_start() {
  StartRecord r;
  r.time_ns = sample().time_ns;
  r.version = "0.1.0";
  r.kernel = "6.18.44";
  r.targets = {"comm=server"};
  r.threshold_ns = 50'000'000;
  r.hook = "auto";
  r.sample_hz = 99;
  r.features = {{"btf", true, true, "/sys/kernel/btf/vmlinux", ""},
                {"fentry", false, false, "not permitted", "a kernel with CONFIG_FPROBE"}};
  return r;
}

SummaryRecord sample_summary() {
  SummaryRecord r;
  r.time_ns = sample().time_ns;
  r.elapsed_ns = 30'000'000'000;
  r.loops = 3;
  r.stalls_seen = 41;
  r.stalls_emitted = 40;
  r.dropped = {{"capture_budget", 2}};
  r.stacks = {120, {{"read_fault", 2}}};
  r.own_cpu_ns = 50'000'000;
  r.bpf_run_ns = 7'000'000;
  r.resident_bytes = 20'000'000;
  return r;
}

LoopListing sample_listing() {
  LoopListing r;
  r.process = sample().process;
  r.thread_id = 101;
  r.thread_name = "server";
  r.loop = sample().loop;
  r.iterations_per_second = 123.5;
  r.utilization = 0.25;
  return r;
}

// A file that a writer writes to and that is read back.
class Capture {
 public:
  explicit Capture(const char* name)
      : path_(testing::TempDir() + "/" + name + "." + std::to_string(::getpid())) {
    ::unlink(path_.c_str());
    auto writer = LineWriter::append_to(path_);
    writer_.emplace(std::move(*writer));
  }
  ~Capture() { ::unlink(path_.c_str()); }

  LineWriter& writer() { return *writer_; }
  const std::string& path() const { return path_; }
  std::string text() const { return *read_file(path_, 1u << 30); }

 private:
  std::string path_;
  std::optional<LineWriter> writer_;
};

void write_all(Sink& sink) {
  ASSERT_TRUE(sink.start(sample_start()));
  ASSERT_TRUE(sink.stall(sample()));
  Stall open = sample();
  open.state = StallState::open;
  open.start_uncertain_ns = 4'000'000;
  open.waits_dropped = 2;
  ASSERT_TRUE(sink.stall(open));
  Stall killed = sample();
  killed.ended_by = "kill";
  killed.culprit.reset();
  killed.stacks.clear();
  killed.waits.clear();
  killed.container = {};
  killed.preempted_by.reset();
  ASSERT_TRUE(sink.stall(killed));
  ASSERT_TRUE(sink.loop(sample_loop()));
  LoopRecord unhooked = sample_loop();
  unhooked.hooked_ns = 0;
  unhooked.iteration.reset();
  ASSERT_TRUE(sink.loop(unhooked));
  ASSERT_TRUE(sink.window(sample_window()));
  WindowRecord empty;
  empty.time_ns = empty.start_ns = empty.end_ns = sample().time_ns;
  empty.threshold_ns = 50'000'000;
  ASSERT_TRUE(sink.window(empty));
  Stall sampled = sample();
  sampled.ended_by = "window";
  sampled.sample_weight = 21.5;
  sampled.sample = SampleInfo{29'923'740, 0.05};
  ASSERT_TRUE(sink.stall(sampled));
  ASSERT_TRUE(sink.warning({sample().time_ns, "ring_full", "the ring was full: 7 records lost"}));
  ASSERT_TRUE(sink.summary(sample_summary()));
}

// Compares with a file under tests/data; LOOPTRACE_UPDATE_GOLDEN=1 writes it instead.
void expect_golden(const std::string& name, const std::string& text) {
  const std::string path = std::string(TEST_DATA_DIR) + "/sinks/" + name;
  if (std::getenv("LOOPTRACE_UPDATE_GOLDEN")) std::ofstream(path) << text;
  const auto golden = read_file(path);
  ASSERT_TRUE(golden) << golden.error().message();
  EXPECT_EQ(text, *golden);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line + '\n');
  return lines;
}

void expect_valid(const std::string& text, size_t max_line) {
  const test::RecordRules rules;
  EXPECT_FALSE(text.empty());
  EXPECT_TRUE(text.ends_with('\n'));
  for (const std::string& line : lines_of(text)) ASSERT_EQ(rules.fault(line, max_line), "") << line;
}

TEST(Jsonl, GoldenLines) {
  Capture capture("golden");
  JsonlSink sink(capture.writer(), {.max_line = 8000, .host = kHost});
  write_all(sink);
  std::string text = capture.text();
  for (const bool more : {true, false}) {
    std::string line;
    if (more) {
      write_loop_info(line, sample_listing(), kHost, 8000);
    } else {
      line = check_json(sample_start().features);
    }
    ASSERT_TRUE(capture.writer().write(line));
  }
  expect_golden("golden.jsonl", capture.text());
  expect_valid(capture.text(), 8000);
}

TEST(Jsonl, KeysInTheContractsOrder) {
  std::string line;
  write_stall(line, sample(), kHost, 8000);
  size_t at = 0;
  for (const char* key :
       {"schema", "id",        "state", "time",  "severity",    "message",      "host",    "process",
        "thread", "container", "k8s",   "loop",  "duration_ns", "threshold_ns", "time_ns", "cause",
        "shape",  "culprit",   "task",  "waits", "stacks",      "fingerprint",  "sample",  "truncated"}) {
    const size_t found = line.find('"' + std::string(key) + "\":", at);
    EXPECT_NE(found, std::string::npos) << key;
    at = std::max(at, found);
  }
  const Json json = Json::parse(line);
  EXPECT_EQ(json["sample"].dump(), "{\"weight\":1.0}");
  EXPECT_TRUE(json["truncated"].empty());
  EXPECT_EQ(json["message"], stall_message(sample()));
}

TEST(Jsonl, PartsAddUpInWhatIsWritten) {
  std::string line;
  for (const size_t max_line : {8000u, 1024u}) {
    write_stall(line, sample(), kHost, max_line);
    const Json json = Json::parse(line);
    const Json& parts = json["time_ns"];
    EXPECT_EQ(parts["on_cpu"].get<uint64_t>() + parts["runqueue"].get<uint64_t>() +
                  parts["blocked"].get<uint64_t>(),
              json["duration_ns"].get<uint64_t>());
  }
}

TEST(Jsonl, HostileText) {
  Stall stall = sample();
  stall.process.comm = "a\x1b[2J\"\\\n\t\x7f";
  stall.thread_name = "\xff\xc3(\xe2\x82";
  stall.process.command_line =
      "caf\xc3\xa9 \xc2\x9b"
      "31m \xe2\x80\xa8 \xf0\x9f\x92\xa5";
  stall.waits[0].syscall = std::string("p\0q", 3);
  std::string line;
  write_stall(line, stall, kHost, 8000);
  EXPECT_EQ(std::count_if(line.begin(), line.end(), [](char c) { return c >= 0 && c < 0x20; }), 1)
      << "the line feed";
  EXPECT_EQ(line.find('\x7f'), std::string::npos);
  EXPECT_EQ(line.find("\xc2\x9b"), std::string::npos);
  const Json json = Json::parse(line);
  EXPECT_EQ(json["process"]["comm"], stall.process.comm);
  EXPECT_EQ(json["process"]["command_line"], stall.process.command_line);
  EXPECT_EQ(json["thread"]["name"], to_utf8(stall.thread_name));
  EXPECT_EQ(json["waits"][0]["syscall"], stall.waits[0].syscall);
}

TEST(Jsonl, NumbersThatAreNone) {
  LoopListing listing = sample_listing();
  listing.iterations_per_second = std::nan("");
  listing.utilization = 1;
  std::string line;
  write_loop_info(line, listing, kHost, 8000);
  EXPECT_FALSE(Json::parse(line).contains("iterations_per_second"));
  EXPECT_NE(line.find("\"utilization\":1.0"), std::string::npos);
}

Stall with_stacks(size_t stacks, size_t frames) {
  Stall stall = sample();
  stall.stacks.clear();
  for (size_t i = 0; i < stacks; ++i) {
    Stack stack;
    stack.state = StackState::blocked;
    stack.weight_ns = 1000 - i;
    for (size_t n = 0; n < frames; ++n) {
      stack.frames.push_back(frame(FrameKind::native, "function_" + std::to_string(n),
                                   "/usr/src/some/place.c", 10, "libsome.so", FrameOrigin::library));
    }
    stall.stacks.push_back(stack);
  }
  return stall;
}

Json fitted(const Stall& stall, size_t max_line) {
  std::string line;
  write_stall(line, stall, kHost, max_line);
  EXPECT_LE(line.size(), max_line);
  return Json::parse(line);
}

TEST(Truncation, LightStacksFirst) {
  const Json json = fitted(with_stacks(12, 20), 8000);
  EXPECT_EQ(json["truncated"], Json::array({"stacks"}));
  EXPECT_GE(json["stacks"].size(), 1u);
  EXPECT_LT(json["stacks"].size(), 12u);
  EXPECT_EQ(json["stacks"][0]["weight_ns"], 1000);
  EXPECT_EQ(json["stacks"][0]["frames"].size(), 20u);
}

TEST(Truncation, TheCulpritsStackStays) {
  Stall stall = with_stacks(3, 60);
  stall.stacks[0].state = stall.stacks[1].state = StackState::on_cpu;
  stall.waits[0].stack = 2;
  const Json json = fitted(stall, 8000);
  ASSERT_EQ(json["stacks"].size(), 1u);
  EXPECT_EQ(json["stacks"][0]["state"], "blocked");
  EXPECT_EQ(json["waits"][0]["stack"], 0) << "follows its stack to its new position";
}

TEST(Truncation, WaitsOfDroppedStacksPointNowhere) {
  Stall stall = with_stacks(3, 60);
  stall.waits[0].stack = 2;
  stall.waits[1].stack = 0;
  stall.waits[1].cause = stall.cause;
  const Json json = fitted(stall, 8000);
  EXPECT_EQ(json["stacks"].size(), 1u);
  for (const Json& wait : json["waits"]) {
    EXPECT_EQ(wait.value("stack", 0), 0);
  }
}

TEST(Truncation, ThenTheMiddleOfAStack) {
  const Json json = fitted(with_stacks(1, 300), 8000);
  EXPECT_EQ(json["truncated"], Json::array({"stacks.frames"}));
  const Json& stack = json["stacks"][0];
  ASSERT_EQ(stack["frames"].size(), 25u);
  EXPECT_EQ(stack["frames_dropped"], 275);
  EXPECT_EQ(stack["frames"][0]["function"], "function_0");
  EXPECT_EQ(stack["frames"][19]["function"], "function_19");
  EXPECT_EQ(stack["frames"][20]["function"], "function_295");
  EXPECT_EQ(stack["frames"][24]["function"], "function_299");
}

TEST(Truncation, LongNamesBeforeWaitsAndMessage) {
  Stall stall = with_stacks(1, 16);
  for (Frame& f : stall.stacks[0].frames) f.function = std::string(3000, 'f');
  const Json json = fitted(stall, 8000);
  EXPECT_EQ(json["truncated"], Json::array({"texts"}));
  EXPECT_TRUE(json.contains("message"));
  EXPECT_TRUE(json["stacks"][0]["frames"][0]["function"].get<std::string>().ends_with("\u2026"));
}

TEST(Truncation, InTheContractsOrder) {
  Stall stall = with_stacks(4, 300);
  stall.process.command_line = std::string(4000, 'x');
  stall.waits.resize(6, stall.waits[0]);
  for (Frame& f : stall.stacks[0].frames) f.function = std::string(300, 'f');
  Json all = fitted(stall, 1024);
  const std::vector<std::string> order = {"stacks", "stacks.frames",        "texts",   "waits.held_by.frames",
                                          "waits",  "process.command_line", "message", "context"};
  EXPECT_EQ(all["truncated"].get<std::vector<std::string>>(), order);
  EXPECT_EQ(all["process"]["pid"], 101);
  EXPECT_EQ(all["id"], stall.id);
  EXPECT_EQ(all["fingerprint"], stall.fingerprint);
  all = fitted(stall, 4000);
  EXPECT_EQ(all["waits"].size(), 3u);
  EXPECT_FALSE(all.contains("message"));
}

class Hostile {
 public:
  explicit Hostile(unsigned seed) : random_(seed) {}

  Stall stall() {
    Stall s;
    s.id = text();
    s.state = coin() ? StallState::open : StallState::closed;
    s.time_ns = number() >> 1;
    s.on_cpu_ns = number() >> 2;
    s.runqueue_ns = number() >> 2;
    s.blocked_ns = number() >> 2;
    s.duration_ns = s.on_cpu_ns + s.runqueue_ns + s.blocked_ns;
    s.threshold_ns = number();
    s.start_uncertain_ns = number();
    if (coin()) s.ended_by = coin() ? "exit" : "kill";
    s.process = {static_cast<uint32_t>(number()), text(), text(), text(), text(), text(), text()};
    s.thread_id = static_cast<uint32_t>(number());
    s.thread_name = text();
    s.container = {text(), text(), text(), text()};
    if (s.container.id.empty()) s.container.id = "x";
    s.loop.kind = coin() ? "epoll" : "io_uring";
    s.loop.fd = static_cast<int>(number());
    s.cause = static_cast<Cause>(number() % 14);
    s.confidence = static_cast<Confidence>(number() % 3);
    s.cause_detail = text();
    s.segments = number();
    s.longest_segment_ns = number();
    if (coin()) s.culprit = random_frame();
    s.waits.resize(number() % 9);
    for (Wait& wait : s.waits) fill(wait);
    s.waits_dropped = number() % 3;
    s.stacks.resize(number() % 7);
    for (Stack& stack : s.stacks) {
      stack.state = static_cast<StackState>(number() % 3);
      stack.weight_ns = number();
      stack.frames.resize(number() % 130);
      for (Frame& f : stack.frames) f = random_frame();
    }
    if (coin()) s.task = {text(), text(), text(), static_cast<int>(number() % 99), text(), {}};
    if (s.task && coin()) s.task->created_at = {text(), text(), static_cast<int>(number() % 99)};
    s.preempted_by = peer();
    s.fingerprint = text();
    if (s.id.empty()) s.id = "x";
    s.sample_weight = 1 + static_cast<double>(number() % 1000) / 7;
    return s;
  }

 private:
  uint64_t number() { return random_(); }
  bool coin() { return random_() % 2; }

  std::string text() {
    const size_t lengths[] = {0, 1, 12, 40, 300, 4096};
    const size_t length = lengths[random_() % 6];
    const int kind = static_cast<int>(random_() % 4);
    std::string out;
    while (out.size() < length) {
      switch (kind) {
        case 0:
          out += static_cast<char>(random_());
          break;  // any byte
        case 1:
          out += static_cast<char>(random_() % 32);
          break;  // six bytes each in JSON
        case 2:
          out += "\xf0\x9f\x92\xa5";
          break;
        default:
          out += static_cast<char>('a' + random_() % 26);
          break;
      }
    }
    return out;
  }

  Frame random_frame() {
    Frame f = frame(static_cast<FrameKind>(random_() % 6), text(), text(), static_cast<int>(random_()),
                    text(), static_cast<FrameOrigin>(random_() % 3));
    f.offset = random_();
    f.build_id = coin() ? "abcdef0123456789" : "";
    return f;
  }

  Peer peer() { return {static_cast<uint32_t>(random_()), static_cast<uint32_t>(random_()), text()}; }

  void fill(Wait& wait) {
    wait.cause = static_cast<Cause>(random_() % 14);
    wait.syscall = text();
    wait.count = random_();
    wait.duration_ns = random_();
    wait.longest_ns = random_();
    if (coin()) {
      wait.target.emplace();
      wait.target->kind = text();
      wait.target->fd = static_cast<int>(random_());
      wait.target->path = text();
      wait.target->local = text();
      wait.target->peer = text();
      wait.target->address = random_();
    }
    if (coin()) wait.woken_by = peer();
    if (coin()) {
      wait.held_by.emplace();
      wait.held_by->thread.comm = text();
      wait.held_by->frames.resize(random_() % 17);
      for (Frame& f : wait.held_by->frames) f = random_frame();
    }
    if (coin()) wait.stack = random_() % 9;
  }

  std::mt19937_64 random_;
};

TEST(Truncation, HostileStallsAlwaysFitAndAreValid) {
#ifdef __SANITIZE_ADDRESS__
  constexpr size_t kStalls = 5;  // each takes ten times as long
#else
  constexpr size_t kStalls = 24;
#endif
  for (const size_t max_line : {1024u, 1500u, 8000u, 40'000u}) {
    Capture capture("hostile");
    JsonlSink sink(capture.writer(), {.max_line = max_line, .host = {std::string(64, 'h'), kHost.id}});
    Hostile hostile(static_cast<unsigned>(max_line));
    for (size_t i = 0; i < kStalls; ++i) ASSERT_TRUE(sink.stall(hostile.stall()));
    expect_valid(capture.text(), max_line);
    const std::string text = capture.text();
    size_t lines = 0;
    for (const std::string_view line : split(text, '\n')) {
      if (line.empty()) continue;
      ++lines;
      EXPECT_LT(line.size(), max_line);
      EXPECT_TRUE(Json::accept(line));
    }
    EXPECT_EQ(lines, kStalls);
  }
}

TEST(Truncation, TheOtherRecordsFitToo) {
  Capture capture("others");
  JsonlSink sink(capture.writer(), {.max_line = 1024, .host = kHost});
  const std::string longest(5000, '\x01');
  LoopRecord loop = sample_loop();
  loop.process = {UINT32_MAX, longest, longest, longest, longest, longest, longest};
  loop.thread_name = longest;
  loop.container = {longest, longest, longest, longest};
  ASSERT_TRUE(sink.loop(loop));
  StartRecord start = sample_start();
  start.version = start.kernel = start.hook = longest;
  start.targets.assign(100, longest);
  start.features.assign(40, {"btf", false, false, longest, longest});
  ASSERT_TRUE(sink.start(start));
  ASSERT_TRUE(sink.warning({1, "ring_full", longest}));
  SummaryRecord summary = sample_summary();
  for (int i = 0; i < 100; ++i) summary.dropped["reason_" + std::to_string(i)] = UINT64_MAX;
  ASSERT_TRUE(sink.summary(summary));
  WindowRecord window = sample_window();
  window.strata.assign(100, {longest, Cause::page_fault, {UINT64_MAX, UINT64_MAX, UINT64_MAX}});
  window.capped.assign(100, {longest, {UINT64_MAX, UINT64_MAX, UINT64_MAX}});
  window.dropped = summary.dropped;
  ASSERT_TRUE(sink.window(window));
  LoopListing listing = sample_listing();
  listing.process = loop.process;
  listing.thread_name = longest;
  std::string line;
  write_loop_info(line, listing, kHost, 1024);
  ASSERT_TRUE(capture.writer().write(line));
  expect_valid(capture.text(), 1024);
}

TEST(Jsonl, Speed) {
  std::vector<Frame> frames(40, frame(FrameKind::python, "handle_request", "/srv/app/service/handlers.py",
                                      120, "handlers", FrameOrigin::application));
  Stall stall = sample();
  stall.stacks = {stall.stacks[0]};
  stall.stacks[0].frames = frames;
  std::string line;
  constexpr int kRecords = 5000;
  const std::clock_t begin = std::clock();  // CPU time: the machine may be busy
  for (int i = 0; i < kRecords; ++i) write_stall(line, stall, kHost, 8000);
  const double took_us = static_cast<double>(std::clock() - begin) * 1e6 / CLOCKS_PER_SEC;
  std::cout << took_us / kRecords << " us per record of 40 frames, " << line.size() << " bytes\n";
  EXPECT_LT(took_us / kRecords, 1500) << "generous: sanitizers on a slow machine";
}

TEST(Redacting, NothingOfThePathsArgumentsAndAddressesIsLeft) {
  Capture capture("redacted");
  JsonlSink sink(capture.writer(), {.max_line = 8000, .host = kHost});
  RedactingSink redacting(sink, {.paths = true, .args = true, .addresses = true});
  write_all(redacting);
  const std::string text = capture.text();
  for (const char* secret :
       {"/srv", "/usr/bin", "app.py\"}, ", "127.0.0.1", "system.slice", "python3 app.py"}) {
    EXPECT_EQ(text.find(secret), std::string::npos) << secret;
  }
  EXPECT_NE(text.find("redacted:5432"), std::string::npos);
  EXPECT_NE(text.find("/app.py"), std::string::npos);
  expect_valid(capture.text(), 8000);
}

TEST(Schema, EveryRecordHasOne) {
  for (const char* name : {"start", "stall", "loop", "warning", "summary", "window", "loop_info", "check"}) {
    const char* text = schema_text(name);
    ASSERT_TRUE(text) << name;
    const Json json = Json::parse(text);
    EXPECT_EQ(json["$schema"], "https://json-schema.org/draft/2020-12/schema");
    EXPECT_EQ(json["properties"]["schema"]["const"], "looptrace." + std::string(name) + "/1");
    EXPECT_EQ(*schema_output(name), text);
  }
  EXPECT_EQ(schema_text("nothing"), nullptr);
  const Json all = Json::parse(*schema_output(""));
  EXPECT_EQ(all.size(), schema_names().size());
  EXPECT_EQ(all["stall"]["title"], "looptrace.stall/1");
  const auto wrong = schema_output("stal");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().fault, Fault::usage);
  EXPECT_NE(wrong.error().what.find("'stal'"), std::string::npos);
  EXPECT_NE(wrong.error().what.find("looptrace schema stall"), std::string::npos);
}

/// Where there is a value in `json`, all the way down.
void pointers_in(const Json& json, const Json::json_pointer& at, std::vector<Json::json_pointer>& found) {
  if (json.is_object())
    for (const auto& [key, child] : json.items()) {
      found.push_back(at / key);
      pointers_in(child, at / key, found);
    }
  if (json.is_array())
    for (size_t i = 0; i < json.size(); ++i) {
      found.push_back(at / i);
      pointers_in(json[i], at / i, found);
    }
}

// Every golden line, and each spoilt at each of its values, in one of some ways: what the tests judge records
// by says what the `jsonschema` of Python says.
TEST(Schema, JudgesAsJsonschemaDoes) {
  const auto golden = read_file(std::string(TEST_DATA_DIR) + "/sinks/golden.jsonl");
  ASSERT_TRUE(golden);
  std::vector<Json> records;
  for (const std::string& line : lines_of(*golden)) {
    const Json record = records.emplace_back(Json::parse(line));
    std::vector<Json::json_pointer> values;
    pointers_in(record, Json::json_pointer(), values);
    for (size_t i = 0; i < values.size(); i += record["schema"] == "looptrace.stall/1" ? 3 : 1) {
      Json spoilt = record;
      switch (i % 5) {
        case 0:
          if (spoilt[values[i].parent_pointer()].is_object())
            spoilt[values[i].parent_pointer()].erase(values[i].back());
          break;
        case 1:
          spoilt[values[i]] = spoilt[values[i]].is_string() ? Json(7) : Json("seven");
          break;
        case 2:
          spoilt[values[i]] = spoilt[values[i]].is_number() ? Json(-1.5) : Json("");
          break;
        case 3:
          spoilt[values[i]] = Json::array({"a", "a", Json::object()});
          break;
        default:
          if (spoilt[values[i].parent_pointer()].is_object())
            spoilt[values[i].parent_pointer() / "other"] = true;
      }
      records.push_back(std::move(spoilt));
    }
  }
  Capture capture("spoilt");
  for (const Json& record : records) ASSERT_TRUE(capture.writer().write(record.dump() + '\n'));

  const std::string answers = capture.path() + ".answers";
  const std::string script = TEST_DATA_DIR "/../validate_schema.py";
  const int status =
      std::system(("/usr/bin/python3 " + script + " " + capture.path() + " >" + answers).c_str());
  const auto said = read_file(answers);
  ::unlink(answers.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 127)
    GTEST_SKIP() << "python3-jsonschema is not installed";
  ASSERT_TRUE(said);
  const auto verdicts = lines_of(*said);
  ASSERT_EQ(verdicts.size(), records.size());
  const test::RecordRules rules;
  size_t wrong = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string fault = rules.schema_fault(records[i]);
    ASSERT_EQ(fault.empty(), verdicts[i] == "ok\n") << fault << "\n" << verdicts[i] << records[i];
    wrong += !fault.empty();
  }
  std::cout << records.size() << " records, " << wrong << " of them wrong\n";
  EXPECT_GT(wrong, records.size() / 3);
}

// A cause that is added to the enum and not to the schema would make valid records invalid.
TEST(Schema, KnowsEveryCause) {
  const Json causes = Json::parse(schema_text("stall"))["properties"]["cause"]["properties"]["kind"]["enum"];
  for (int i = 0; i <= static_cast<int>(Cause::other); ++i) {
    EXPECT_NE(std::find(causes.begin(), causes.end(), cause_name(static_cast<Cause>(i))), causes.end());
  }
  EXPECT_EQ(causes.size(), static_cast<size_t>(Cause::other) + 1);
}

TEST(LineWriter, AReaderThatLeavesIsToldApart) {
  std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[0]);
  LineWriter writer = LineWriter::borrow(ends[1]);
  const auto result = writer.write("x\n");
  ASSERT_FALSE(result);
  EXPECT_TRUE(is_reader_gone(result.error()));
  ::close(ends[1]);
}

TEST(LineWriter, AFullDeviceNamesTheMend) {
  auto writer = LineWriter::append_to("/dev/full");
  ASSERT_TRUE(writer);
  const auto result = writer->write("x\n");
  ASSERT_FALSE(result);
  EXPECT_FALSE(is_reader_gone(result.error()));
  EXPECT_EQ(result.error().err, ENOSPC);
  EXPECT_NE(result.error().message().find("/dev/full (free some space"), std::string::npos);
}

TEST(LineWriter, WaitsForASlowReaderOfANonBlockingPipe) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_NONBLOCK), 0);
  const std::string text(1u << 20, 'x');
  std::string got;
  std::thread reader([&] {
    std::vector<char> chunk(30'000);
    ::fcntl(ends[0], F_SETFL, 0);
    for (ssize_t n; (n = ::read(ends[0], chunk.data(), chunk.size())) > 0;)
      got.append(chunk.data(), static_cast<size_t>(n));
  });
  LineWriter writer = LineWriter::borrow(ends[1]);
  EXPECT_TRUE(writer.write(text));
  ::close(ends[1]);
  reader.join();
  ::close(ends[0]);
  EXPECT_EQ(got.size(), text.size());
}

TEST(LineWriter, AppendsAndMendsATornLine) {
  Capture capture("torn");
  std::ofstream(capture.path()) << "whole\ntorn";
  auto writer = LineWriter::append_to(capture.path());
  ASSERT_TRUE(writer);
  EXPECT_TRUE(writer->write("a\n"));
  EXPECT_TRUE(writer->write("b\n"));
  EXPECT_EQ(capture.text(), "whole\ntorn\na\nb\n");
}

TEST(LineWriter, ReopensAfterARotation) {
  Capture capture("rotate");
  EXPECT_TRUE(capture.writer().write("a\n"));
  const std::string rotated = capture.path() + ".1";
  ASSERT_EQ(::rename(capture.path().c_str(), rotated.c_str()), 0);
  EXPECT_TRUE(capture.writer().write("b\n"));
  EXPECT_TRUE(capture.writer().reopen());
  EXPECT_TRUE(capture.writer().write("c\n"));
  EXPECT_EQ(*read_file(rotated), "a\nb\n");
  EXPECT_EQ(capture.text(), "c\n");
  ::unlink(rotated.c_str());
  EXPECT_TRUE(LineWriter::borrow(1).reopen()) << "nothing to do";
}

TEST(LineWriter, KeepsTheOldFileIfTheNewOneDoesNotOpen) {
  const std::string directory = testing::TempDir() + "/gone." + std::to_string(::getpid());
  ASSERT_EQ(::mkdir(directory.c_str(), 0700), 0);
  auto writer = LineWriter::append_to(directory + "/x");
  ASSERT_TRUE(writer);
  ::unlink((directory + "/x").c_str());
  ::rmdir(directory.c_str());
  const auto result = writer->reopen();
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find("create its directory first"), std::string::npos);
  EXPECT_TRUE(writer->write("still open\n"));
}

const Terminal kPlain = {.colours = false, .unicode = false, .width = 100};

TEST(Pretty, GoldenBlocks) {
  Capture capture("pretty");
  PrettySink sink(capture.writer(), {.terminal = kPlain, .verbose = true});
  write_all(sink);
  expect_golden("pretty.txt", capture.text());
}

TEST(Pretty, WhoRanInsteadWhereItMattered) {
  Stall stall = sample();
  EXPECT_EQ(render_stall(stall, kPlain).find("stress[44]"), std::string::npos);
  std::swap(stall.runqueue_ns, stall.blocked_ns);
  EXPECT_NE(render_stall(stall, kPlain).find("stress[44] ran"), std::string::npos);
}

TEST(Pretty, LoopsOnlyOnRequest) {
  Capture capture("quiet");
  PrettySink sink(capture.writer(), {.terminal = kPlain});
  ASSERT_TRUE(sink.loop(sample_loop()));
  EXPECT_EQ(capture.text(), "");
}

TEST(Pretty, StaysWithinTheTerminal) {
  Stall stall = with_stacks(1, 50);
  for (Frame& f : stall.stacks[0].frames) f.function = f.file = std::string(200, 'f');
  stall.waits[0].target->peer = std::string(200, 'p');
  const std::string block = render_stall(stall, {.colours = false, .unicode = true, .width = 80});
  const auto lines = split(block, '\n');
  for (size_t i = 1; i < lines.size(); ++i) EXPECT_LE(columns(lines[i]), 80u) << lines[i];
}

TEST(Pretty, ShowsADeepCulprit) {
  Stall stall = with_stacks(1, 50);
  stall.stacks[0].frames[30].origin = FrameOrigin::application;
  stall.stacks[0].frames[30].function = "my_handler";
  const std::string block = render_stall(stall, kPlain);
  EXPECT_NE(block.find("> my_handler"), std::string::npos);
  EXPECT_NE(block.find("... 20 frames"), std::string::npos);
  EXPECT_NE(block.find("... 17 frames"), std::string::npos);
}

TEST(Pretty, NothingHostileReachesTheTerminal) {
  Hostile hostile(7);
  for (int i = 0; i < 50; ++i) {
    const std::string block =
        render_stall(hostile.stall(), {.colours = false, .unicode = true, .width = 100});
    EXPECT_EQ(block, to_utf8(block));
    for (const char c : block) {
      const auto byte = static_cast<unsigned char>(c);
      ASSERT_TRUE(c == '\n' || (byte >= 0x20 && byte != 0x7f)) << int{byte};
    }
    EXPECT_EQ(block.find("\xe2\x80\xae"), std::string::npos);
  }
  EXPECT_EQ(printable("a\x1b]0;x\x07 \xc2\x9b \xe2\x80\xae \xff\nb\u00e9"), "a?]0;x? ? ? ??b\u00e9");
}

TEST(Pretty, ColoursOnlyWhereAsked) {
  EXPECT_EQ(render_stall(sample(), kPlain).find('\x1b'), std::string::npos);
  const std::string coloured = render_stall(sample(), {.colours = true, .unicode = true, .width = 100});
  EXPECT_NE(coloured.find("\x1b[1;31m"), std::string::npos);
  EXPECT_NE(coloured.find("\u2591"), std::string::npos);
}

TEST(Terminal, ColoursNeedATerminalAndNoNoColor) {
  const UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY));
  ASSERT_TRUE(master && ::grantpt(master.get()) == 0 && ::unlockpt(master.get()) == 0);
  const UniqueFd terminal(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY));
  ASSERT_TRUE(terminal);
  ::setenv("TERM", "xterm", 1);
  ::unsetenv("NO_COLOR");
  EXPECT_TRUE(describe_terminal(terminal.get()).colours);
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(describe_terminal(terminal.get()).colours);
  ::setenv("NO_COLOR", "", 1);
  EXPECT_TRUE(describe_terminal(terminal.get()).colours);
  ::unsetenv("NO_COLOR");
  Capture file("file");
  EXPECT_FALSE(describe_terminal(file.writer().fd()).colours);
  ::setenv("LC_ALL", "C.UTF-8", 1);
  EXPECT_TRUE(describe_terminal(1).unicode);
  ::setenv("LC_ALL", "C", 1);
  EXPECT_FALSE(describe_terminal(1).unicode);
  ::unsetenv("LC_ALL");
}

TEST(Text, ShortenedByColumns) {
  EXPECT_EQ(shorten_end("abcdef", 6), "abcdef");
  EXPECT_EQ(shorten_end("abcdefg", 6), "abc...");
  EXPECT_EQ(shorten_middle("abcdefghij", 7), "ab...ij");
  EXPECT_EQ(shorten_middle("\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", 7),
            "\u00e9\u00e9...\u00e9\u00e9");
  EXPECT_EQ(shorten_end("abcdef", 2), "ab");
  EXPECT_EQ(pad("\u00e9", 3), "\u00e9  ");
}

TEST(Folded, OneLineAStack) {
  Capture capture("folded");
  FoldedSink sink(capture.writer());
  write_all(sink);
  expect_golden("folded.txt", capture.text());
}

TEST(Folded, OpenStallsWaitForTheirEndAndWeightsMultiply) {
  Capture capture("weights");
  FoldedSink sink(capture.writer());
  Stall stall = sample();
  stall.state = StallState::open;
  ASSERT_TRUE(sink.stall(stall));
  EXPECT_EQ(capture.text(), "");
  stall = sample();
  stall.stacks.resize(1);
  stall.stacks[0].weight_ns = 100;
  stall.stacks[0].frames.resize(1);
  stall.stacks[0].frames[0] = frame(FrameKind::native, "a;b\nc", "", 0, "", FrameOrigin::application);
  stall.thread_name.clear();
  stall.sample_weight = 2.5;
  ASSERT_TRUE(sink.stall(stall));
  EXPECT_EQ(capture.text(), "server;[unknown];a:b?c 250\n");
}

TEST(Listing, Table) {
  LoopListing node = sample_listing();
  node.process.pid = 7;
  node.thread_id = 70'000;
  node.process.comm = "node\x1b[31m";
  node.process.runtime.clear();
  node.loop.kind = "poll";
  node.loop.fd.reset();
  node.iterations_per_second = 51234.7;
  const LoopListing loops[] = {sample_listing(), node};
  expect_golden("listing.txt", render_listing(loops, kPlain));
  EXPECT_EQ(split(render_listing({}, kPlain), '\n').size(), 2u) << "the head alone";
}

TEST(Check, Report) {
  std::vector<Capability> features = sample_start().features;
  features.push_back({"fentry", false, true, "", "run as root"});
  expect_golden("check.txt", render_check(features, kPlain));
  const Json json = Json::parse(check_json(features));
  EXPECT_EQ(json["schema"], "looptrace.check/1");
  EXPECT_EQ(json["features"]["btf"]["available"], true);
  EXPECT_FALSE(json["features"]["btf"].contains("mend"));
  EXPECT_EQ(json["features"]["fentry_2"]["mend"], "run as root");
  EXPECT_NE(render_check(sample_start().features, kPlain).find("looptrace can run here"), std::string::npos);
}

}  // namespace
}  // namespace looptrace
