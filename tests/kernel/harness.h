// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace looptrace::test {

using nlohmann::json;

uint64_t monotonic_ns();

/// Waits until this holds; whether it does.
template <typename Holds>
bool wait_until(Holds holds, double seconds,
                std::chrono::microseconds pause = std::chrono::milliseconds(50)) {
  const uint64_t until = monotonic_ns() + static_cast<uint64_t>(seconds * 1e9);
  while (!holds()) {
    if (monotonic_ns() > until) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

struct ProcessOptions {
  bool read_output = true;  ///< false: nobody reads until read_output() is called
  pid_t pid = 0;            ///< a pid that is free and must be this one's; 0 = any
  std::string directory;    ///< to start in
};

/// A child process whose standard output and error are read as they come. Killed if still alive at the end.
class Process {
 public:
  explicit Process(std::vector<std::string> argv, ProcessOptions options = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  /// Waits until a line of standard output begins with `prefix`; the line, or nothing after `seconds`.
  std::optional<std::string> wait_line(const std::string& prefix, double seconds = 10);
  /// Waits for the end; the exit code, or 128 + signal. Kills it after `seconds`.
  int wait(double seconds = 30);
  bool signal(int number);
  bool ended();
  void read_output();
  std::vector<std::string> lines();
  /// When each of lines() came, CLOCK_MONOTONIC.
  std::vector<uint64_t> arrivals();
  std::string errors();

 private:
  void read_all(int fd, bool is_output);
  pid_t pid_ = -1;
  std::optional<int> status_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  std::vector<uint64_t> arrivals_;
  int unread_ = -1;
  std::string partial_, errors_;
  bool ended_ = false, errors_ended_ = false;  // of the two pipes
  std::thread out_, err_;
};

/// A victim that has said "ready". Its log is read after it ended.
class Victim {
 public:
  Victim(const std::string& name, std::vector<std::string> args = {});
  /// Any command that says "ready" as victims do.
  explicit Victim(std::vector<std::string> command, ProcessOptions options = {});
  Process& process() { return process_; }
  pid_t pid() const { return process_.pid(); }
  bool ready() const { return ready_; }
  /// Tells that the trace has begun: no need to wait for --delay-ms.
  void begin() { process_.signal(SIGUSR1); }
  /// Waits for its end and reads the stalls it logged. `skipped` if this kernel refuses what it needs.
  std::vector<json> truth();
  /// The first line that has `key`: what a victim tells of itself besides its stalls.
  json said(const std::string& key);
  bool skipped() const { return skipped_; }

 private:
  Process process_;
  bool ready_ = false;
  bool skipped_ = false;
};

/// A running looptrace with JSON on standard output. Every line is validated against its schema at the end.
class Trace {
 public:
  explicit Trace(std::vector<std::string> args, ProcessOptions options = {});
  /// Waits until it has attached; false (with the error on stderr) if it ended instead.
  bool started();
  /// Ends it with SIGINT and returns its exit code.
  int stop();
  int wait(double seconds = 30);
  Process& process() { return process_; }

  std::vector<json> records(const std::string& schema);
  std::vector<json> stalls(const std::string& state = "closed");
  /// The open records, each with "arrived_ns" (CLOCK_MONOTONIC).
  std::vector<json> arrived_open();
  std::optional<json> summary();
  /// Waits for an open or closed stall record.
  std::optional<json> wait_stall(const std::string& state, double seconds);

 private:
  Process process_;
  size_t max_line_ = 8000;  // as --max-line says
};

/// CLOCK_MONOTONIC time at which a record's iteration began.
uint64_t start_of(const json& stall);

/// The stall of the thread and the time that a victim's `truth` tells of; null if there is none.
const json* overlapping(const json& truth, const std::vector<json>& stalls);

/// The stalls of one process, in time order.
std::vector<json> of_pid(const std::vector<json>& stalls, pid_t pid);

/// Exactly these stalls and no others, each with its exact ledger: parts sum to the duration, and duration
/// and on-CPU time agree with the victim's own account within 1 % or `slack_ns`, whichever is larger.
void expect_exactly(const std::vector<json>& stalls, const std::vector<json>& truth,
                    uint64_t slack_ns = 200'000);
void expect_sum(const json& stall);

/// The victim's program file.
std::string victim_path(const std::string& name);
/// A command that ran to its end.
struct Outcome {
  int code;
  std::string out, errors;
};
Outcome run(std::vector<std::string> command, double seconds = 20);
Outcome run_looptrace(std::vector<std::string> args, double seconds = 20);

/// What 127.0.0.1:port answers, head and all; "" if nobody listens.
std::string http_get(uint16_t port, const std::string& path, const std::string& accept = "*/*");

/// Threads of a process by name, as /proc tells them.
std::vector<pid_t> threads_named(pid_t pid, const std::string& name);
/// A number from /proc/PID/status, such as VmRSS in kB.
uint64_t status_number(pid_t pid, const std::string& key);

/// A directory of its own under /tmp, removed with all that is in it.
class Directory {
 public:
  Directory();
  ~Directory();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// A cgroup in a mounted hierarchy, removed with its parents at the end.
class Cgroup {
 public:
  Cgroup(const std::string& mount, const std::string& path);
  ~Cgroup();
  bool join(pid_t pid);

 private:
  std::vector<std::string> made_;
};
std::vector<std::string> cgroup_hierarchies();

/// Skips the test, with the reason, where BPF cannot be used.
#define LOOPTRACE_NEEDS_ROOT() \
  if (geteuid() != 0) GTEST_SKIP() << "needs root"

}  // namespace looptrace::test
