// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness.h"

namespace looptrace::test {

/// A fixture of servers/ that is ready: its server answers; its stalls begin after --delay-ms, at the latest.
class Server {
 public:
  explicit Server(const std::string& name, std::vector<std::string> args = {});
  ~Server();  ///< a fixture that is still running is told to clear up
  bool ready() const { return !info_.is_null(); }
  /// Tells that the trace has begun: no need to wait for --delay-ms. Where a tracer needs healthy polls to
  /// know the loop, or a program to get warm, some time after.
  void begin(double after_seconds = 0);
  /// Why it is not ready; a server that is not installed exits with 77.
  bool not_installed();
  std::string errors() { return process_.errors(); }

  const std::string& name() const { return name_; }
  pid_t pid() const { return info_["pid"]; }
  const json& info() const { return info_; }
  std::string loop_kind() const { return info_.value("loop_kind", "epoll"); }
  /// Descriptor of the main thread's own poll, as /proc shows it while the thread sleeps there; -1 where
  /// others poll, or it does not with epoll.
  int loop_fd();
  /// What system call the main thread is in, and on what descriptor; -1 while it runs.
  std::pair<long, int> system_call() const;
  bool wait_until_in(long system_call, int not_fd, double seconds);
  /// Waits for the end; the stalls that the fixture made.
  std::vector<json> truth();

 private:
  std::string name_;
  Process process_;
  json info_;
  int loop_fd_ = -1;
};

/// How well the records of one server agree with its truth: a row of the table at the end.
struct Row {
  std::string name;
  size_t truths = 0, reported = 0;
  double worst_error_ms = 0;
  size_t culprits_right = 0, causes_right = 0;
};
void keep_row(const Row& row);

/// Each stall that began after `from_ns` has exactly one record and there is no other; each record is right
/// in duration, sum, cause, target, waker, culprit, loop and stacks. One row of the table.
void expect_right(const std::string& title, Server& server, const std::vector<json>& stalls,
                  const std::vector<json>& truth, uint64_t from_ns);

/// The one wait that a record's cause speaks of: the heaviest of that cause.
const json* wait_of_cause(const json& stall);

}  // namespace looptrace::test
