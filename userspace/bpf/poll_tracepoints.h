// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/free_with.h"
#include "base/result.h"

struct bpf_link;
struct bpf_program;
extern "C" int bpf_link__destroy(bpf_link* link);

namespace looptrace {

/// A program on the entry tracepoints of all poll system calls (epoll_wait, poll, select, ...), as far as
/// this kernel has them, and its canary on sched_switch. They come in a millisecond; they go in 0.6 to 1 s,
/// since the kernel waits for RCU grace periods for each, and so in a thread of their own.
class PollTracepoints {
 public:
  PollTracepoints() = default;
  /// Waits until they are gone.
  ~PollTracepoints();

  /// Waits for those that are going.
  Result<void> attach(bpf_program* program, bpf_program* canary);
  void release();

  bool attached() const { return !links_.empty(); }
  /// attach() would wait.
  bool going() const { return going_; }

 private:
  Result<void> attach_one(bpf_program* program, const char* category, const char* event);

  using LinkPtr = std::unique_ptr<bpf_link, FreeWith<bpf_link__destroy>>;

  std::vector<LinkPtr> links_;
  std::atomic<bool> going_{false};
  std::jthread leaving_;
};

}  // namespace looptrace
