// SPDX-License-Identifier: Apache-2.0
#include "trace/parked_workers.h"

#include <algorithm>
#include <iterator>

#include "arch.h"
#include "trace/raw.h"

namespace looptrace {

namespace {

constexpr size_t kMaxPollers = 16, kMaxStrangers = 256;  // walked at a look; 0.1 ms each
static_assert(kMaxStrangers <= LT_MAX_PARKED);
constexpr uint64_t kDirectCall = 0xe8;  // and four bytes: the distance
constexpr int kCallBytes = 5;

using Addresses = std::vector<uint64_t>;

// Empty where it does not reach the thread's start.
Addresses whole_stack(const TracedProcess& process, const lt_waiting& thread) {
  UnwoundStack stack = unwind(*process.modules, {thread.ip, thread.sp, thread.bp},
                              memory_reader(static_cast<pid_t>(process.tgid)), LT_MAX_USER);
  return stack.status == LT_UNWIND_END ? std::move(stack.addresses) : Addresses{};
}

struct Poller {
  const lt_waiting* thread;
  Addresses stack;
};

}  // namespace

bool chose_in_same_call(std::span<const uint64_t> polling, std::span<const uint64_t> waiting,
                        const ReadWord& read) {
  const auto [p, w] = std::mismatch(polling.rbegin(), polling.rend(), waiting.rbegin(), waiting.rend());
  if (p == polling.rbegin() || p == polling.rend() || w == waiting.rend()) return false;
  const uint64_t returns_to = *std::prev(p);
  uint64_t code = 0;  // the eight bytes before
  return read(returns_to - sizeof code, code) &&
         (code >> 8 * (sizeof code - kCallBytes) & 0xff) == kDirectCall;
}

std::vector<Engine::Parked> find_parked_workers(const TracedProcess& process,
                                                std::span<const lt_waiting> threads, const KnownLoop& known) {
  std::vector<Poller> pollers;
  std::vector<const lt_waiting*> strangers;
  for (const lt_waiting& thread : threads) {
    const lt_poll_call* const loop = known(thread.tid);
    if (!loop && thread.nr == LT_NR_futex && strangers.size() < kMaxStrangers) strangers.push_back(&thread);
    if (loop && thread.nr != LT_NR_futex && loop->kind == LT_POLL_EPOLL && pollers.size() < kMaxPollers &&
        static_cast<int32_t>(thread.arg0) == loop->fd)
      pollers.push_back({&thread, {}});
  }
  std::erase_if(strangers, [&](const lt_waiting* thread) {
    return std::none_of(pollers.begin(), pollers.end(), [&](const Poller& poller) {
      return comm_text(thread->comm) == comm_text(poller.thread->comm);
    });
  });
  std::vector<Engine::Parked> found;
  if (strangers.empty() || !process.modules) return found;
  const ReadWord read = memory_reader(static_cast<pid_t>(process.tgid));
  for (Poller& poller : pollers) poller.stack = whole_stack(process, *poller.thread);
  for (const lt_waiting* thread : strangers) {
    const Addresses stack = whole_stack(process, *thread);
    const auto poller = std::find_if(pollers.begin(), pollers.end(), [&](const Poller& p) {
      return comm_text(thread->comm) == comm_text(p.thread->comm) && chose_in_same_call(p.stack, stack, read);
    });
    if (poller == pollers.end()) continue;
    found.push_back({thread->tid, thread->sp, static_cast<int32_t>(poller->thread->arg0)});
  }
  return found;
}

std::optional<uint32_t> ParkedWorkersDue::next(uint64_t now_ns) {
  for (auto it = due_.begin(); it != due_.end(); ++it) {
    if (it->second.at_ns > now_ns) continue;
    const uint32_t tgid = it->first;
    it->second.at_ns = now_ns + kEveryNs;
    if (!--it->second.looks) due_.erase(it);
    return tgid;
  }
  return std::nullopt;
}

}  // namespace looptrace
