// SPDX-License-Identifier: Apache-2.0
#include "bpf/poll_tracepoints.h"

#include <bpf/libbpf.h>

#include <cerrno>
#include <utility>

#include "base/files.h"

namespace looptrace {

namespace {

// A kernel may lack some (epoll_pwait2 came with 5.11).
constexpr const char* kEvents[] = {
    "sys_enter_epoll_wait", "sys_enter_epoll_pwait", "sys_enter_epoll_pwait2", "sys_enter_poll",
    "sys_enter_ppoll",      "sys_enter_select",      "sys_enter_pselect6",     "sys_enter_io_uring_enter"};

bool has_event(const std::string& name) {
  return readable("/sys/kernel/tracing/events/syscalls/" + name + "/id") ||
         readable("/sys/kernel/debug/tracing/events/syscalls/" + name + "/id");
}

}  // namespace

PollTracepoints::~PollTracepoints() = default;

Result<void> PollTracepoints::attach_one(bpf_program* program, const char* category, const char* event) {
  LinkPtr link(bpf_program__attach_tracepoint(program, category, event));
  if (!link) return Error{std::string("attach to the tracepoint ") + event, errno, Fault::unsupported};
  links_.push_back(std::move(link));
  return {};
}

Result<void> PollTracepoints::attach(bpf_program* program, bpf_program* canary) {
  if (leaving_.joinable()) leaving_.join();
  Result<void> done;
  for (const char* event : kEvents)
    if (done && has_event(event)) done = attach_one(program, "syscalls", event);
  if (done && links_.empty())
    return Error{"find the polls' tracepoints in tracefs", ENOENT, Fault::unsupported};
  if (done) done = attach_one(canary, "sched", "sched_switch");
  if (!done) release();
  return done;
}

void PollTracepoints::release() {
  if (links_.empty()) return;
  going_ = true;
  leaving_ = std::jthread([this, links = std::exchange(links_, {})]() mutable {
    links.clear();
    going_ = false;
  });
}

}  // namespace looptrace
