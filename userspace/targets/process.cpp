// SPDX-License-Identifier: Apache-2.0
#include "targets/process.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/files.h"

namespace looptrace {
namespace {

constexpr size_t kCommandLineLimit = 4096;
constexpr uint64_t kSecond = 1'000'000'000ull;
constexpr std::string_view kDeleted = " (deleted)";

std::string without_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

bool is_plain(unsigned char c) {
  return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("_-./:=,+@%^").find(static_cast<char>(c)) != std::string_view::npos;
}

bool is_control(unsigned char c) { return c < 0x20 || c == 0x7f; }

// $'...' where there are control characters, '...' where there is anything else that a shell would interpret.
void append_quoted(std::string_view argument, std::string& out) {
  const bool control = std::any_of(argument.begin(), argument.end(), is_control);
  if (!control && !argument.empty() && std::all_of(argument.begin(), argument.end(), is_plain)) {
    out += argument;
    return;
  }
  out += control ? "$'" : "'";
  for (const char c : argument) {
    if (control && is_control(static_cast<unsigned char>(c))) {
      std::array<char, 8> escaped;
      std::snprintf(escaped.data(), escaped.size(), "\\x%02x", static_cast<unsigned char>(c));
      out += escaped.data();
    } else if (control && (c == '\'' || c == '\\')) {
      out += '\\';
      out += c;
    } else if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  out += '\'';
}

uint64_t read_clock(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * kSecond + static_cast<uint64_t>(t.tv_nsec);
}

std::vector<ThreadFacts> read_threads(const ProcFs& procfs, pid_t pid, const ProcStat& stat) {
  if (stat.threads == 1) return {{pid, stat.comm}};  // most processes: saves a directory and a file
  std::vector<ThreadFacts> threads;
  for (const pid_t tid : procfs.threads(pid)) {
    if (auto comm = procfs.read(pid, "task/" + std::to_string(tid) + "/comm")) {
      threads.push_back({tid, without_newline(std::move(*comm))});
    }
  }
  return threads;
}

void read_exe(const ProcFs& procfs, pid_t pid, ProcessFacts& facts) {
  auto exe = procfs.link(pid, "exe");
  if (!exe) return;
  if (exe->ends_with(kDeleted)) {
    exe->resize(exe->size() - kDeleted.size());
    facts.exe_deleted = true;
  }
  facts.exe = std::move(*exe);
}

}  // namespace

bool is_start(uint64_t start_ns, uint64_t boottime_ns) {
  const uint64_t tick = kSecond / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
  return boottime_ns / tick == start_ns / tick;
}

std::optional<ProcessFacts> read_process(const ProcFs& procfs, pid_t pid, unsigned parts) {
  const auto stat_text = procfs.read(pid, "stat");
  if (!stat_text) return std::nullopt;
  const auto stat = parse_stat(*stat_text);
  if (!stat || stat->has_ended()) return std::nullopt;

  ProcessFacts facts;
  facts.pid = pid;
  facts.parent = stat->parent;
  facts.comm = stat->comm;
  facts.start_ns = stat->start_ns;
  facts.is_kernel_thread = stat->is_kernel_thread();

  if (parts & kPartStatus) {
    const auto text = procfs.read(pid, "status");
    const auto status = text ? parse_status(*text) : std::nullopt;
    if (!status || status->tgid != pid) return std::nullopt;
    facts.uid = status->uid;
    facts.ns_pids = status->ns_pids;
  }
  if (parts & kPartThreads) {
    facts.threads = read_threads(procfs, pid, *stat);
    if (facts.threads.empty()) return std::nullopt;
  }
  if (parts & kPartCgroups) {
    if (const auto text = procfs.read(pid, "cgroup")) facts.cgroups = parse_cgroups(*text);
  }
  if (facts.is_kernel_thread) return facts;

  if (parts & kPartExe) read_exe(procfs, pid, facts);
  if (parts & kPartCommandLine) {
    if (const auto text = procfs.read(pid, "cmdline")) facts.command_line = render_command_line(*text);
  }
  return facts;
}

std::optional<std::string> read_thread_comm(const ProcFs& procfs, pid_t tid) {
  auto comm = procfs.read(tid, "comm");
  if (!comm) return std::nullopt;
  return without_newline(std::move(*comm));
}

std::optional<pid_t> process_of_thread(const ProcFs& procfs, pid_t tid) {
  const auto text = procfs.read(tid, "status");
  const auto status = text ? parse_status(*text) : std::nullopt;
  if (!status) return std::nullopt;
  return status->tgid;
}

ProcessInfo to_process_info(const ProcessFacts& facts) {
  ProcessInfo info;
  info.pid = static_cast<uint32_t>(facts.pid);
  info.start_time = boot_time_to_rfc3339(facts.start_ns);
  info.comm = facts.comm;
  info.executable = facts.exe;
  info.command_line = facts.command_line;
  info.cgroup = choose_cgroup(facts.cgroups);
  return info;
}

std::string render_command_line(std::string_view cmdline) {
  while (cmdline.ends_with('\0')) cmdline.remove_suffix(1);  // its own, and the padding of a rewritten title
  std::string line;
  if (cmdline.find('\0') == cmdline.npos && std::none_of(cmdline.begin(), cmdline.end(), is_control)) {
    line = cmdline.substr(0, kCommandLineLimit + 1);  // one argument: a title such as "nginx: worker process"
  } else {
    for (const std::string_view argument : split(cmdline, '\0')) {
      if (!line.empty()) line += ' ';
      append_quoted(argument, line);
      if (line.size() > kCommandLineLimit) break;
    }
  }
  if (line.size() <= kCommandLineLimit) return line;
  return std::string(whole_characters(std::string_view(line).substr(0, kCommandLineLimit - 3))) + "...";
}

std::string realtime_to_rfc3339(uint64_t realtime_ns) {
  const time_t seconds = static_cast<time_t>(realtime_ns / kSecond);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%09lluZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<unsigned long long>(realtime_ns % kSecond));
  return text.data();
}

std::string boot_time_to_rfc3339(uint64_t since_boot_ns) {
  // Slewing moves both clocks alike, so the time of boot is the same all through the run; to the tick,
  // because start times are no finer and the two clocks are read a moment apart.
  constexpr uint64_t kTick = kSecond / 100;
  static const uint64_t boot_ns = [] {
    const uint64_t real = read_clock(CLOCK_REALTIME);
    return (real - read_clock(CLOCK_BOOTTIME)) / kTick * kTick;
  }();
  return realtime_to_rfc3339(boot_ns + since_boot_ns);
}

}  // namespace looptrace
