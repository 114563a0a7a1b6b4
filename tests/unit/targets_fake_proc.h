// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "targets/procfs.h"

namespace looptrace {

/// A /proc of the test's own making, in a temporary directory.
class FakeProc {
 public:
  struct Process {
    pid_t pid = 0;
    std::string comm = "server";
    pid_t parent = 1;
    uint32_t flags = 0;
    uint64_t start_ticks = 1000;
    char state = 'S';
    std::string exe = "/usr/bin/server";
    std::string cmdline = {};
    std::string cgroup = "0::/system.slice/server.service\n";
    std::vector<std::pair<pid_t, std::string>> threads = {};  // besides the main thread
  };

  FakeProc() {
    char name[] = "/tmp/looptrace-proc-XXXXXX";
    root_ = ::mkdtemp(name);
  }
  ~FakeProc() { std::filesystem::remove_all(root_); }

  ProcFs procfs() const { return ProcFs(root_); }
  const std::string& root() const { return root_; }

  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path whole = root_ + "/" + path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole, std::ios::binary) << text;
  }

  void link(const std::string& path, const std::string& target) const {
    const std::filesystem::path whole = root_ + "/" + path;
    std::filesystem::create_directories(whole.parent_path());
    std::filesystem::create_symlink(target, whole);
  }

  void add(const Process& p) const {
    const std::string dir = std::to_string(p.pid);
    write(dir + "/stat", stat_line(p, p.pid));
    write(dir + "/comm", p.comm + "\n");
    write(dir + "/status", status_text(p.pid, p.pid));
    write(dir + "/cmdline", p.cmdline);
    write(dir + "/cgroup", p.cgroup);
    if (!p.exe.empty()) link(dir + "/exe", p.exe);
    write(dir + "/task/" + dir + "/comm", p.comm + "\n");
    for (const auto& [tid, comm] : p.threads) {
      write(dir + "/task/" + std::to_string(tid) + "/comm", comm + "\n");
      threads_.emplace_back(tid, p.pid);
    }
  }

  /// /proc serves thread ids without listing them; a directory cannot, so tests that ask by tid show them.
  void show_threads() const {
    for (const auto& [tid, pid] : threads_) write(std::to_string(tid) + "/status", status_text(tid, pid));
  }

  void remove(pid_t pid) const { std::filesystem::remove_all(root_ + "/" + std::to_string(pid)); }

 private:
  static std::string stat_line(const Process& p, pid_t pid) {
    std::string line = std::to_string(pid) + " (" + p.comm + ") " + p.state + " " + std::to_string(p.parent);
    line += " 1 1 0 -1 " + std::to_string(p.flags) + " 0 0 0 0 5 6 0 0 20 0 " +
            std::to_string(p.threads.size() + 1);
    line += " 0 " + std::to_string(p.start_ticks) + " 1000000 250 18446744073709551615 1 1 0 0 0 0 0\n";
    return line;
  }

  static std::string status_text(pid_t pid, pid_t tgid) {
    return "Name:\tx\nTgid:\t" + std::to_string(tgid) + "\nPid:\t" + std::to_string(pid) +
           "\nUid:\t1000\t0\t0\t0\nNSpid:\t" + std::to_string(pid) + "\t7\n";
  }

  std::string root_;
  mutable std::vector<std::pair<pid_t, pid_t>> threads_;
};

}  // namespace looptrace
