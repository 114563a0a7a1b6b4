// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "record/frame.h"
#include "record/task.h"

namespace looptrace {

/// What a stall's time went to (spec/events.md, cause.kind). Append only; names in cause_name().
enum class Cause {
  cpu,
  gc,
  network,
  file,
  pipe,
  lock,
  gil,
  sleep,
  child,
  page_fault,
  runqueue,
  throttled,
  stopped,
  other,
};
const char* cause_name(Cause cause);

enum class Confidence {
  certain,   ///< seen in the kernel
  inferred,  ///< a rule over frames
  unknown,
};
const char* confidence_name(Confidence confidence);

/// A thread that was seen acting on the loop: it woke it, or ran in its place.
struct Peer {
  uint32_t pid = 0;
  uint32_t tid = 0;
  std::string comm;
};

/// What a system call waited on. `kind` is one of file, pipe, unix, tcp, udp, netlink, timerfd, eventfd,
/// epoll, signalfd, inotify, pidfd, io_uring, device, process, futex, socket, anon.
struct WaitTarget {
  std::string kind;
  std::optional<int> fd;
  std::string path;   ///< file, pipe, unix
  std::string local;  ///< tcp, udp: "127.0.0.1:40112", "[::1]:80"
  std::string peer;
  std::optional<uint32_t> pid;      ///< process: the child that was waited for
  std::optional<uint64_t> address;  ///< futex word
  bool connected = false;           ///< a socket that has a peer; in no record
};

/// Who had the lock that a thread waited for, as seen during the wait.
struct Holder {
  Peer thread;
  std::vector<Frame> frames;  ///< its interpreter's, leaf first; empty if they could not be read
};

/// All waits of one iteration in one system call on one target.
struct Wait {
  Cause cause = Cause::other;
  std::string syscall;  ///< "poll"; "page fault" where no system call was under way
  uint64_t count = 0;
  uint64_t duration_ns = 0;  ///< total blocked time
  uint64_t longest_ns = 0;
  std::optional<WaitTarget> target;
  std::optional<Peer> woken_by;
  std::optional<Holder> held_by;  ///< gil: who had it most of the times that somebody looked
  std::optional<size_t> stack;    ///< index into Stall::stacks
};

enum class StackState { on_cpu, blocked, runqueue };
const char* stack_state_name(StackState state);

/// One distinct stack of the stall, with the time that it stands for.
struct Stack {
  StackState state = StackState::on_cpu;
  uint64_t weight_ns = 0;
  uint64_t samples = 0;
  std::vector<Frame> frames;  ///< leaf first
  bool truncated = false;     ///< does not reach the thread's start
};

struct ProcessInfo {
  uint32_t pid = 0;
  std::string start_time;  ///< RFC 3339
  std::string comm;
  std::string executable;
  std::string command_line;
  std::string runtime;  ///< "cpython 3.11.2", "node 20.20.2"; empty if not recognised
  std::string cgroup;
};

struct ContainerInfo {
  std::string id;
  std::string k8s_namespace, k8s_pod, k8s_container;
  std::string name = {};  ///< as its engine calls it
};

/// How a record of the agent came to be in the sample.
struct SampleInfo {
  uint64_t window = 0;     ///< number of the window
  double probability = 1;  ///< that the window was active
};

struct LoopInfo {
  std::string kind;       ///< epoll, poll, select, io_uring
  std::optional<int> fd;  ///< epoll and io_uring
};

enum class StallState { open, closed };

/// One loop iteration at or over the threshold: what the sinks see. Times are nanoseconds.
struct Stall {
  std::string id;
  StallState state = StallState::closed;
  uint64_t time_ns = 0;  ///< CLOCK_REALTIME at which the iteration began
  uint64_t duration_ns = 0;
  uint64_t threshold_ns = 0;
  uint64_t on_cpu_ns = 0, runqueue_ns = 0, blocked_ns = 0;  ///< sum to duration_ns, exactly
  /// Upper bound of how much later the iteration may really have begun (0 = exact): the poll hook was not
  /// armed yet, so a poll that did not sleep in this first part of the iteration would not have been seen.
  uint64_t start_uncertain_ns = 0;
  std::string ended_by;  ///< "", "exit", "exec", "kill"; "window": goes on, but the agent stopped looking
  ProcessInfo process;
  uint32_t thread_id = 0;
  std::string thread_name;
  ContainerInfo container;
  std::string service;  ///< what runs there, by the agent's rules; empty without them
  LoopInfo loop;
  Cause cause = Cause::other;
  Confidence confidence = Confidence::unknown;
  std::string cause_detail;
  uint64_t segments = 0;  ///< times that the thread left or entered a CPU
  uint64_t longest_segment_ns = 0;
  std::optional<Frame> culprit;
  std::optional<TaskInfo> task;      ///< what the culprit's stack ran for
  std::vector<Wait> waits;           ///< heaviest first
  uint64_t waits_dropped = 0;        ///< distinct waits beyond the kernel's table, merged into one entry
  std::vector<Stack> stacks;         ///< heaviest first
  std::optional<Peer> preempted_by;  ///< who ran while the loop was runnable
  std::string fingerprint;
  double sample_weight = 1.0;        ///< how many stalls this record stands for
  std::optional<SampleInfo> sample;  ///< only the agent samples
};

}  // namespace looptrace
