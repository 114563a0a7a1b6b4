// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cinttypes>
#include <cstdio>

#include "record/cause.h"

namespace looptrace {
namespace {

std::string hex(uint64_t value) {
  std::array<char, 19> text;
  std::snprintf(text.data(), text.size(), "0x%" PRIx64, value);
  return text.data();
}

// What tells one target of a kind from another.
std::string name_in_kind(const WaitTarget& target) {
  if (!target.peer.empty()) return target.peer;
  if (!target.path.empty()) return target.path;
  if (!target.local.empty()) return target.local;
  if (target.pid) return std::to_string(*target.pid);
  if (target.address) return hex(*target.address);
  if (target.fd) return "fd " + std::to_string(*target.fd);
  return {};
}

bool is_dns(const WaitTarget& target) {
  return (target.kind == "udp" || target.kind == "tcp") && target.peer.ends_with(":53");
}

}  // namespace

std::string describe_target(const WaitTarget& target) {
  std::string text = target.kind == "process" ? "pid" : target.kind == "unknown" ? "" : target.kind;
  const std::string name = name_in_kind(target);
  if (!name.empty()) text += (text.empty() ? "" : " ") + name;
  if (is_dns(target)) text += " (DNS)";
  return text;
}

std::string describe_peer(const Peer& peer) { return peer.comm + "[" + std::to_string(peer.tid) + "]"; }

std::string describe_wait(const Wait& wait) {
  std::string text = wait.syscall;
  const std::string target = wait.target ? describe_target(*wait.target) : "";
  if (wait.target && wait.target->kind == "futex") {
    // "futex on futex 0x..." says one thing twice.
    const std::string word = name_in_kind(*wait.target);
    if (!word.empty()) text += (text == "futex" ? " " : " on futex ") + word;
  } else if (!target.empty()) {
    text += " on " + target;
  }
  const bool waker_tells = wait.cause == Cause::lock || wait.cause == Cause::gil;
  if (waker_tells && wait.woken_by) text += ", woken by " + describe_peer(*wait.woken_by);
  return text;
}

}  // namespace looptrace
