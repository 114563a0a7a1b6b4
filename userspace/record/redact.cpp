// SPDX-License-Identifier: Apache-2.0
#include "record/redact.h"

#include <arpa/inet.h>

#include <string_view>

#include "base/sha256.h"

namespace looptrace {
namespace {

bool is_ip(std::string_view text) {
  const std::string host(text.substr(0, text.find('%')));  // without an IPv6 zone
  in6_addr bytes{};
  return ::inet_pton(AF_INET, host.c_str(), &bytes) == 1 || ::inet_pton(AF_INET6, host.c_str(), &bytes) == 1;
}

// The IP address in "10.0.0.7:5432", "[::1]:80", "10.0.0.7" or "::1"; empty if it is something else.
std::string_view host_part(std::string_view text) {
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    return end != text.npos && is_ip(text.substr(1, end - 1)) ? text.substr(0, end + 1) : std::string_view();
  }
  if (is_ip(text)) return text;
  const std::string_view host = text.substr(0, text.rfind(':'));
  return is_ip(host) ? host : std::string_view();
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

bool ends_word(char c) {
  return c == ' ' || c == ',' || c == ';' || c == '"' || c == '\'' || c == '(' || c == ')' || c == '=';
}

}  // namespace

void Redactor::hide_path(std::string& path) const {
  const size_t slash = path.rfind('/');
  // A bare name says nothing of where; "/" and "/init.scope" have no directory to hide.
  if (!rules_.paths || slash == path.npos || slash == 0) return;
  path = "sha:" + sha256_hex(path.substr(0, slash)).substr(0, 8) + path.substr(slash);
}

void Redactor::hide_address(std::string& address) const {
  if (!rules_.addresses || address.empty()) return;
  const std::string_view host = host_part(address);
  if (!host.empty()) {
    address.replace(0, host.size(), "redacted");
  } else {
    const size_t port = address.rfind(':');
    address = port == address.npos ? "redacted" : "redacted" + address.substr(port);
  }
}

void Redactor::hide_words(std::string& text) const {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && !ends_word(text[end])) ++end;
    std::string word = text.substr(at, end - at);
    // Punctuation that closes a clause is not part of the address before it.
    const bool colon = word.ends_with(':');
    if (colon) word.pop_back();
    if (word.starts_with('/')) hide_path(word);
    if (!host_part(word).empty()) hide_address(word);
    out += word;
    if (colon) out += ':';
    if (end < text.size()) out += text[end];
    at = end + 1;
  }
  text = std::move(out);
}

std::string Redactor::hash(const std::string& text) const { return keyed_hash(rules_.key, text); }

// "container=3f4e", "cgroup=/system.slice/nginx.service", as they were given.
void Redactor::hide_target(std::string& target) const {
  const size_t equals = target.find('=');
  const std::string kind = target.substr(0, equals);
  if (rules_.ids && equals != target.npos && (kind == "container" || kind == "cgroup")) {
    target = kind + "=" + hash(target.substr(equals + 1));
  } else {
    hide_words(target);
  }
}

void Redactor::hide(ProcessInfo& process) const {
  hide_path(process.executable);
  if (rules_.ids && !process.cgroup.empty()) {
    process.cgroup = hash(process.cgroup);
  } else {
    hide_path(process.cgroup);
  }
  if (rules_.args) process.command_line.clear();
}

void Redactor::hide(ContainerInfo& container) const {
  if (!rules_.ids) return;
  for (std::string* id : {&container.id, &container.name, &container.k8s_pod, &container.k8s_namespace,
                          &container.k8s_container})
    *id = hash(*id);
}

void Redactor::hide(Frame& frame) const {
  hide_path(frame.file);
  hide_path(frame.module);
}

void Redactor::hide(Wait& wait, std::string& detail) const {
  if (wait.held_by) {
    for (Frame& frame : wait.held_by->frames) hide(frame);
  }
  if (!wait.target) return;
  const WaitTarget before = *wait.target;
  hide_path(wait.target->path);
  hide_address(wait.target->local);
  hide_address(wait.target->peer);
  // Paths may hold blanks, so the words of the detail do not show where they end.
  replace_all(detail, before.path, wait.target->path);
}

Stall Redactor::apply(Stall stall) const {
  hide(stall.process);
  hide(stall.container);
  for (Wait& wait : stall.waits) hide(wait, stall.cause_detail);
  for (Stack& stack : stall.stacks) {
    for (Frame& frame : stack.frames) hide(frame);
  }
  if (stall.culprit) hide(*stall.culprit);
  if (stall.task) {
    hide_path(stall.task->file);
    if (stall.task->created_at) hide_path(stall.task->created_at->file);
  }
  hide_words(stall.cause_detail);
  return stall;
}

LoopRecord Redactor::apply(LoopRecord loop) const {
  hide(loop.process);
  hide(loop.container);
  return loop;
}

StartRecord Redactor::apply(StartRecord start) const {
  for (std::string& target : start.targets) hide_target(target);
  for (Capability& feature : start.features) {
    hide_words(feature.detail);
    hide_words(feature.mend);
  }
  return start;
}

WarningRecord Redactor::apply(WarningRecord warning) const {
  hide_words(warning.message);
  return warning;
}

LoopListing Redactor::apply(LoopListing listing) const {
  hide(listing.process);
  return listing;
}

}  // namespace looptrace
