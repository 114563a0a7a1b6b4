// SPDX-License-Identifier: Apache-2.0
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "record_rules.h"

namespace looptrace::test {

namespace {

using Clock = std::chrono::steady_clock;

uint64_t clock_of(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

std::chrono::nanoseconds seconds_of(double s) {
  return std::chrono::nanoseconds(static_cast<int64_t>(s * 1e9));
}

// A child with a pid of our choosing.
pid_t fork_as(pid_t wanted) {
  clone_args args{};
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<uintptr_t>(&wanted);
  args.set_tid_size = 1;
  return static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
}

void validate(const std::vector<std::string>& lines) {
  const RecordRules rules;
  EXPECT_FALSE(lines.empty()) << "no records";
  for (const std::string& line : lines) {
    const std::string fault = rules.fault(line + '\n', 0);
    ASSERT_EQ(fault, "") << line.substr(0, 2000);
  }
}

}  // namespace

uint64_t monotonic_ns() { return clock_of(CLOCK_MONOTONIC); }

Process::Process(std::vector<std::string> argv, ProcessOptions options) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) throw std::runtime_error("pipe");
  pid_ = options.pid ? fork_as(options.pid) : fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    if (!options.directory.empty() && chdir(options.directory.c_str())) _exit(126);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    std::vector<char*> args;
    for (auto& a : argv) args.push_back(a.data());
    args.push_back(nullptr);
    execv(args[0], args.data());
    perror(args[0]);
    _exit(127);
  }
  close(out[1]);
  close(err[1]);
  unread_ = out[0];
  if (options.read_output) read_output();
  err_ = std::thread([this, fd = err[0]] { read_all(fd, false); });
}

void Process::read_output() {
  out_ = std::thread([this, fd = std::exchange(unread_, -1)] { read_all(fd, true); });
}

Process::~Process() {
  if (!status_) {
    kill(pid_, SIGKILL);
    int status;
    waitpid(pid_, &status, 0);
  }
  if (unread_ >= 0) close(unread_);
  if (out_.joinable()) out_.join();
  err_.join();
}

void Process::read_all(int fd, bool is_output) {
  char chunk[65536];
  ssize_t n;
  while ((n = read(fd, chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR)) {
    if (n < 0) continue;
    std::lock_guard lock(mutex_);
    if (!is_output) {
      errors_.append(chunk, static_cast<size_t>(n));
      continue;
    }
    partial_.append(chunk, static_cast<size_t>(n));
    size_t from = 0, to;
    while ((to = partial_.find('\n', from)) != std::string::npos) {
      lines_.push_back(partial_.substr(from, to - from));
      arrivals_.push_back(monotonic_ns());
      from = to + 1;
    }
    partial_.erase(0, from);
    changed_.notify_all();
  }
  close(fd);
  std::lock_guard lock(mutex_);
  (is_output ? ended_ : errors_ended_) = true;
  changed_.notify_all();
}

std::optional<std::string> Process::wait_line(const std::string& prefix, double seconds) {
  const auto end = Clock::now() + seconds_of(seconds);
  std::unique_lock lock(mutex_);
  size_t seen = 0;
  while (true) {
    for (; seen < lines_.size(); ++seen) {
      if (lines_[seen].starts_with(prefix)) return lines_[seen];
    }
    if (ended_) return std::nullopt;
    if (changed_.wait_until(lock, end) == std::cv_status::timeout && Clock::now() >= end) return std::nullopt;
  }
}

int Process::wait(double seconds) {
  if (status_) return *status_;
  const auto end = Clock::now() + seconds_of(seconds);
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (Clock::now() > end) {
      ADD_FAILURE() << "process " << pid_ << " did not end in " << seconds << " s";
      kill(pid_, SIGKILL);
      waitpid(pid_, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  std::unique_lock lock(mutex_);
  if (unread_ < 0) changed_.wait_for(lock, std::chrono::seconds(5), [&] { return ended_ && errors_ended_; });
  return *status_;
}

bool Process::ended() {
  int status;
  if (status_ || waitpid(pid_, &status, WNOHANG) == 0) return status_.has_value();
  status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return true;
}

bool Process::signal(int number) { return !status_ && kill(pid_, number) == 0; }

std::vector<std::string> Process::lines() {
  std::lock_guard lock(mutex_);
  return lines_;
}

std::vector<uint64_t> Process::arrivals() {
  std::lock_guard lock(mutex_);
  return arrivals_;
}

std::string Process::errors() {
  std::lock_guard lock(mutex_);
  return errors_;
}

Victim::Victim(const std::string& name, std::vector<std::string> args)
    : process_([&] {
        args.insert(args.begin(), victim_path(name));
        return args;
      }()) {
  ready_ = process_.wait_line("ready").has_value();
}

Victim::Victim(std::vector<std::string> command, ProcessOptions options)
    : process_(std::move(command), std::move(options)) {
  ready_ = process_.wait_line("ready").has_value();
}

json Victim::said(const std::string& key) {
  for (const std::string& line : process_.lines()) {
    const json j = json::parse(line, nullptr, false);
    if (j.is_object() && j.contains(key)) return j;
  }
  return {};
}

std::vector<json> Victim::truth() {
  const int code = process_.wait(120);
  skipped_ = code == 77;
  if (skipped_) std::fprintf(stderr, "%s", process_.errors().c_str());
  std::vector<json> stalls;
  for (const std::string& line : process_.lines()) {
    const json j = json::parse(line, nullptr, false);
    if (j.is_object() && j.contains("kind")) stalls.push_back(j);
  }
  return stalls;
}

Trace::Trace(std::vector<std::string> args, ProcessOptions options)
    : process_(
          [&] {
            args.insert(args.begin(), LOOPTRACE_BINARY);
            const bool is_agent = args.size() > 1 && args[1] == "agent";  // writes nothing but JSON
            if (!is_agent && std::find(args.begin(), args.end(), "-f") == args.end()) {
              args.push_back("-f");
              args.push_back("json");
            }
            return args;
          }(),
          std::move(options)) {
  const auto given = std::find(args.begin(), args.end(), "--max-line");
  if (given != args.end() && given + 1 != args.end()) max_line_ = std::stoul(*(given + 1));
}

bool Trace::started() {
  const bool ok = process_.wait_line("{\"schema\":\"looptrace.start/1\"", 15).has_value();
  if (!ok) std::fprintf(stderr, "%s", process_.errors().c_str());
  return ok;
}

int Trace::stop() {
  process_.signal(SIGINT);
  return wait();
}

int Trace::wait(double seconds) {
  const int code = process_.wait(seconds);
  validate(process_.lines());
  return code;
}

std::vector<json> Trace::records(const std::string& schema) {
  std::vector<json> out;
  const std::string head = "{\"schema\":\"" + schema + '"';
  for (const std::string& line : process_.lines()) {
    EXPECT_LE(line.size() + 1, max_line_);
    if (!line.starts_with(head)) continue;  // validate() parses all
    json j = json::parse(line, nullptr, false);
    EXPECT_TRUE(j.is_object()) << line;
    if (j.is_object()) out.push_back(std::move(j));
  }
  return out;
}

std::vector<json> Trace::stalls(const std::string& state) {
  std::vector<json> out;
  for (json& j : records("looptrace.stall/1")) {
    if (j["state"] == state) out.push_back(std::move(j));
  }
  return out;
}

std::vector<json> Trace::arrived_open() {
  // Arrivals first: both only grow.
  const auto arrivals = process_.arrivals();
  const auto lines = process_.lines();
  std::vector<json> out;
  for (size_t i = 0; i < arrivals.size(); ++i) {
    json j = json::parse(lines[i], nullptr, false);
    if (!j.is_object() || j.value("state", "") != "open") continue;
    j["arrived_ns"] = arrivals[i];
    out.push_back(std::move(j));
  }
  return out;
}

std::optional<json> Trace::summary() {
  auto all = records("looptrace.summary/1");
  return all.empty() ? std::nullopt : std::optional(all.back());
}

std::optional<json> Trace::wait_stall(const std::string& state, double seconds) {
  const auto end = Clock::now() + seconds_of(seconds);
  while (Clock::now() < end) {
    auto found = stalls(state);
    if (!found.empty()) return found.front();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return std::nullopt;
}

const json* overlapping(const json& truth, const std::vector<json>& stalls) {
  for (const json& s : stalls) {
    const uint64_t from = start_of(s), to = from + s["duration_ns"].get<uint64_t>();
    if (s["thread"]["id"] == truth["tid"] && from < truth["end_ns"] && truth["start_ns"] < to) return &s;
  }
  return nullptr;
}

uint64_t start_of(const json& stall) {
  // "2026-11-23T09:00:00.123456789Z"
  const std::string text = stall["time"];
  tm t{};
  strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &t);
  const uint64_t realtime =
      static_cast<uint64_t>(timegm(&t)) * 1'000'000'000 + std::stoull(text.substr(20, 9));
  return realtime - (clock_of(CLOCK_REALTIME) - clock_of(CLOCK_MONOTONIC));
}

std::vector<json> of_pid(const std::vector<json>& stalls, pid_t pid) {
  std::vector<json> out;
  for (const json& s : stalls) {
    if (s["process"]["pid"] == pid) out.push_back(s);
  }
  std::sort(out.begin(), out.end(), [](const json& a, const json& b) { return start_of(a) < start_of(b); });
  return out;
}

void expect_sum(const json& stall) {
  const json& t = stall["time_ns"];
  EXPECT_EQ(t["on_cpu"].get<uint64_t>() + t["runqueue"].get<uint64_t>() + t["blocked"].get<uint64_t>(),
            stall["duration_ns"].get<uint64_t>())
      << stall.dump();
}

void expect_exactly(const std::vector<json>& stalls, const std::vector<json>& truth, uint64_t slack_ns) {
  EXPECT_EQ(stalls.size(), truth.size());
  std::vector<bool> used(stalls.size());
  struct Span {
    uint64_t from, to, tid;
  };
  std::vector<Span> spans;  // there may be thousands
  for (const json& s : stalls) {
    const uint64_t from = start_of(s);
    spans.push_back({from, from + s["duration_ns"].get<uint64_t>(), s["thread"]["id"]});
  }
  for (const json& t : truth) {
    const uint64_t from = t["start_ns"], to = t["end_ns"], tid = t["tid"];
    size_t match = stalls.size();
    for (size_t i = 0; i < stalls.size(); ++i) {
      if (!used[i] && spans[i].tid == tid && spans[i].from < to && from < spans[i].to) {
        match = i;
        break;
      }
    }
    if (match == stalls.size()) {
      ADD_FAILURE() << "missed: " << t.dump();
      continue;
    }
    used[match] = true;
    const json& s = stalls[match];
    expect_sum(s);
    const double want = static_cast<double>(to - from), got = s["duration_ns"];
    const double uncertain = s.value("start_uncertain_ns", 0.0);
    EXPECT_LE(std::abs(got - want), std::max(want / 100, static_cast<double>(slack_ns)) + uncertain)
        << "true " << t.dump() << "\nrecord " << s.dump();
    const double cpu = t["cpu_ns"], on_cpu = s["time_ns"]["on_cpu"];
    // What the hypervisor took is on-CPU time to the scheduler's events, and not in the thread's CPU clock.
    const double stolen = t["kind"] == "cpu" ? std::max(0.0, want - cpu - t["runq_ns"].get<double>()) : 0;
    EXPECT_LE(std::abs(on_cpu - cpu),
              std::max(want / 100, static_cast<double>(slack_ns)) + uncertain + stolen)
        << "on-CPU time; true " << t.dump() << "\nrecord " << s.dump();
  }
  for (size_t i = 0; i < stalls.size(); ++i) {
    if (!used[i]) ADD_FAILURE() << "invented: " << stalls[i].dump();
  }
}

std::string victim_path(const std::string& name) { return std::string(VICTIM_DIR) + "/victim_" + name; }

Outcome run(std::vector<std::string> command, double seconds) {
  Process process(std::move(command));
  Outcome outcome;
  outcome.code = process.wait(seconds);
  for (const std::string& line : process.lines()) outcome.out += line + "\n";
  outcome.errors = process.errors();
  return outcome;
}

Outcome run_looptrace(std::vector<std::string> args, double seconds) {
  args.insert(args.begin(), LOOPTRACE_BINARY);
  return run(std::move(args), seconds);
}

std::string http_get(uint16_t port, const std::string& path, const std::string& accept) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string response;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0) {
    const std::string request =
        "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nAccept: " + accept + "\r\n\r\n";
    char chunk[65536];
    ssize_t n = send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    while (n > 0 && (n = recv(fd, chunk, sizeof chunk, 0)) > 0)
      response.append(chunk, static_cast<size_t>(n));
  }
  close(fd);
  return response;
}

std::vector<pid_t> threads_named(pid_t pid, const std::string& name) {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    std::ifstream file(entry.path() / "comm");
    std::string comm;
    std::getline(file, comm);
    if (comm == name) found.push_back(std::stoi(entry.path().filename()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

uint64_t status_number(pid_t pid, const std::string& key) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stoull(line.substr(key.size() + 1));
  }
  return 0;
}

Directory::Directory() {
  char path[] = "/tmp/looptrace-test-XXXXXX";
  if (!mkdtemp(path)) throw std::runtime_error("mkdtemp");
  path_ = path;
}

Directory::~Directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Cgroup::Cgroup(const std::string& mount, const std::string& path) {
  for (size_t at = 0; at != std::string::npos;) {
    at = path.find('/', at + 1);
    made_.push_back(mount + path.substr(0, at));
    mkdir(made_.back().c_str(), 0755);
  }
}

Cgroup::~Cgroup() {
  for (auto it = made_.rbegin(); it != made_.rend(); ++it) rmdir(it->c_str());
}

bool Cgroup::join(pid_t pid) {
  std::ofstream file(made_.back() + "/cgroup.procs");
  file << pid << std::flush;
  return file.good();
}

std::vector<std::string> cgroup_hierarchies() {
  std::vector<std::string> found;
  for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"}) {
    if (access((std::string(path) + "/cgroup.procs").c_str(), F_OK) == 0) found.emplace_back(path);
  }
  return found;
}

}  // namespace looptrace::test
