// SPDX-License-Identifier: Apache-2.0
#include "record/format.h"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <ctime>
#include <string_view>

#include "record/cause.h"

namespace looptrace {
namespace {

constexpr uint64_t kMicrosecond = 1'000, kMillisecond = 1'000'000, kSecond = 1'000'000'000;
constexpr uint64_t kMinute = 60 * kSecond, kHour = 60 * kMinute;

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string three_digits(uint64_t ns, uint64_t unit, const char* name) {
  const uint64_t whole = ns / unit;
  std::string text = std::to_string(whole);
  if (whole < 100 && ns % unit) {
    const unsigned decimals = whole < 10 ? 2 : 1;
    std::string fraction = std::to_string(ns % unit * (decimals == 2 ? 100 : 10) / unit);
    text += '.' + std::string(decimals - fraction.size(), '0') + fraction;
  }
  return text + ' ' + name;
}

std::string two_units(uint64_t ns, uint64_t unit, const char* name, uint64_t part, const char* part_name) {
  return std::to_string(ns / unit) + ' ' + name + ' ' + std::to_string(ns % unit / part) + ' ' + part_name;
}

// The detail, without the kind of socket: an address speaks for itself.
std::string short_detail(const std::string& detail) {
  for (const std::string_view kind : {" on tcp ", " on udp "}) {
    const size_t at = detail.find(kind);
    if (at != detail.npos) return detail.substr(0, at) + " on " + detail.substr(at + kind.size());
  }
  return detail;
}

std::string what_happened(const Stall& stall) {
  std::string detail = short_detail(stall.cause_detail);
  const auto in = [&](const char* noun) {
    return detail.empty() ? noun : std::string(noun) + " in " + detail;
  };
  const auto plus = [&](const char* noun) {
    return detail.empty() ? noun : std::string(noun) + ", " + detail;
  };
  switch (stall.cause) {
    case Cause::cpu:
      return plus("on CPU");
    case Cause::gc:
      return plus("garbage collection");
    case Cause::network:
      return in("network wait");
    case Cause::file:
      return in("file wait");
    case Cause::pipe:
      return in("pipe wait");
    case Cause::lock:
      return in("lock wait");
    case Cause::gil:
      return in("GIL wait");
    case Cause::sleep:
      return in("sleep");
    case Cause::child:
      return in("wait for a child process");
    case Cause::page_fault:
      return detail.empty() || detail.starts_with("page fault") ? (detail.empty() ? "page fault" : detail)
                                                                : "page fault, " + detail;
    case Cause::runqueue:
      return detail.empty() ? "runnable, but not given a CPU" : detail;
    case Cause::throttled:
      return plus("throttled");
    case Cause::stopped:
      return detail.empty() ? "stopped" : detail;
    case Cause::other:
      return in("wait");
  }
  return detail;
}

std::string how_it_ended(const Stall& stall) {
  if (stall.ended_by == "exit") return " until it exited";
  if (stall.ended_by == "exec") return " until it called exec";
  if (stall.ended_by == "window") return " and goes on";
  if (stall.ended_by == "kill") return " until it was killed";
  return {};
}

}  // namespace

std::string format_time(uint64_t realtime_ns) {
  const auto seconds = static_cast<time_t>(realtime_ns / kSecond);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%09" PRIu64 "Z",
                parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
                parts.tm_sec, realtime_ns % kSecond);
  return text.data();
}

std::string format_duration(uint64_t ns) {
  if (ns < kMicrosecond) return std::to_string(ns) + " ns";
  if (ns < kMillisecond) return three_digits(ns, kMicrosecond, "us");
  if (ns < kSecond) return three_digits(ns, kMillisecond, "ms");
  if (ns < kMinute) return three_digits(ns, kSecond, "s");
  if (ns < kHour) return two_units(ns, kMinute, "min", kSecond, "s");
  return two_units(ns, kHour, "h", kMinute, "min");
}

std::string format_frame(const Frame& frame) {
  std::string place;
  if (!frame.file.empty()) {
    place = base_name(frame.file);
    if (frame.line > 0) place += ':' + std::to_string(frame.line);
  } else if (!frame.module.empty()) {
    place = base_name(frame.module);
    if (frame.offset) {
      std::array<char, 20> offset;
      std::snprintf(offset.data(), offset.size(), "+0x%" PRIx64, frame.offset);
      place += offset.data();
    }
  }
  if (frame.function.empty()) return place;
  return place.empty() ? frame.function : frame.function + " (" + place + ")";
}

const char* severity_name(Severity severity) {
  switch (severity) {
    case Severity::info:
      return "info";
    case Severity::warn:
      return "warn";
    case Severity::error:
      return "error";
  }
  return "info";
}

Severity severity_of(const Stall& stall) {
  // Divided and not multiplied: a threshold may be as large as a number gets.
  if (stall.duration_ns >= kSecond || stall.duration_ns / 10 >= stall.threshold_ns) return Severity::error;
  return stall.duration_ns / 2 >= stall.threshold_ns ? Severity::warn : Severity::info;
}

std::string stall_message(const Stall& stall) {
  std::string text = stall.process.comm + '[' + std::to_string(stall.process.pid) + ']';
  if (stall.thread_id != stall.process.pid) {
    text += " thread " + stall.thread_name + '[' + std::to_string(stall.thread_id) + ']';
  }
  text += stall.state == StallState::open ? " loop still stalled after " : " loop stalled ";
  text += format_duration(stall.duration_ns) + how_it_ended(stall) + ": " + what_happened(stall);
  if (stall.culprit) {
    const std::string culprit = format_frame(*stall.culprit);
    if (!culprit.empty()) text += ", at " + culprit;
  }
  return text;
}

std::string summary_message(const SummaryRecord& summary) {
  const auto count = [](uint64_t n, const char* noun) {
    return std::to_string(n) + ' ' + noun + (n == 1 ? "" : "s");
  };
  std::string text = count(summary.stalls_seen, "stall") + " on " + count(summary.loops, "loop") + " in " +
                     format_duration(summary.elapsed_ns);
  if (summary.stalls_emitted != summary.stalls_seen)
    text += ", " + std::to_string(summary.stalls_emitted) + " written";
  for (const auto& [reason, n] : summary.dropped)
    text += "; dropped " + std::to_string(n) + " (" + reason + ")";
  return text;
}

}  // namespace looptrace
