// SPDX-License-Identifier: Apache-2.0
#include "trace/shared_pollers.h"

namespace looptrace {

namespace {

constexpr uint64_t kCompareNs = 100'000'000;

}  // namespace

void SharedPollers::found(uint32_t tgid, uint32_t index) {
  Process& process = processes_[tgid];
  process.slots.push_back(index);
  process.compared_ns = 0;
}

void SharedPollers::gone(uint32_t tgid, uint32_t index) {
  const auto it = processes_.find(tgid);
  if (it == processes_.end()) return;
  std::erase(it->second.slots, index);
  if (it->second.slots.empty()) processes_.erase(it);
}

void SharedPollers::mark(uint32_t tgid, uint64_t now_ns) {
  const auto it = processes_.find(tgid);
  if (it == processes_.end()) return;
  Process& process = it->second;
  if (process.slots.size() < 2 || (process.compared_ns && now_ns - process.compared_ns < kCompareNs)) return;
  process.compared_ns = now_ns;
  std::unordered_map<int32_t, uint32_t> first;  // epoll fd -> the first slot that polls it
  for (const uint32_t index : process.slots) {
    lt_slot& slot = slot_(index);
    if (slot.loop.call.kind != LT_POLL_EPOLL) continue;
    const auto [other, fresh] = first.try_emplace(slot.loop.call.fd, index);
    if (fresh) continue;
    slot.user_flags |= LT_SLOT_SHARED_POLLER;
    slot_(other->second).user_flags |= LT_SLOT_SHARED_POLLER;
  }
}

void SharedPollers::share(uint32_t tgid, int32_t epoll_fd) {
  for (const uint32_t index : slots_of(tgid)) {
    lt_slot& slot = slot_(index);
    if (slot.loop.call.kind == LT_POLL_EPOLL && slot.loop.call.fd == epoll_fd)
      slot.user_flags |= LT_SLOT_SHARED_POLLER;
  }
}

std::vector<uint32_t> SharedPollers::slots_of(uint32_t tgid) const {
  const auto it = processes_.find(tgid);
  return it == processes_.end() ? std::vector<uint32_t>{} : it->second.slots;
}

}  // namespace looptrace
