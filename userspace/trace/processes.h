// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "bpf/engine.h"
#include "record/stall.h"
#include "runtimes/runtime.h"
#include "stacks/module.h"
#include "targets/process.h"

namespace looptrace {

/// An unwind table in the kernel that belongs to one process.
struct CodeTable {
  lt_row_table table{};  ///< file 0 = none
  uint64_t bias = 0;     ///< that its rows are relative to
};

/// One traced process: what records say of it, and what its stacks need.
struct TracedProcess {
  uint32_t tgid = 0;
  uint64_t start_boottime = 0;  ///< from the kernel: tells a reused pid; 0 = no loop of it was found yet
  uint64_t started_ns = 0;      ///< the same from /proc, to the clock tick
  ProcessInfo info;
  ContainerInfo container;
  std::string service;
  std::optional<ProcessModules> modules;  ///< absent where /proc/PID/maps could not be read
  std::unique_ptr<Runtime> runtime;       ///< null where none is recognised
  std::vector<std::string> warnings;      ///< not yet reported
  std::set<std::string> warned;           ///< of what has been warned of
  uint64_t loaded_ns = 0;                 ///< when the modules were read
  CodeTable code;                         ///< of the code that the runtime made
  bool makes_code = false;                ///< and makes more of it
  uint64_t learned_ns = 0;                ///< when BPF was last told what Runtime::learn() has found
  uint32_t loops = 0;                     ///< slots that belong to it

  /// Modules are read again and again: what is wrong with a process is told once.
  void warn(std::string message) {
    if (warned.insert(message).second) warnings.push_back(std::move(message));
  }
  /// The modules were read longer ago than `age_ns`. They may have been read since `now_ns` was.
  bool is_older(uint64_t age_ns, uint64_t now_ns) const { return now_ns > loaded_ns + age_ns; }
  /// Nothing speaks against it.
  bool may_have_started_at(uint64_t boottime_ns) const;
  /// In the range of the code that its runtime makes.
  bool in_made_code(uint64_t address) const;
};

/// What runs in a process, by the user's rules.
using ServiceNamer = std::function<std::string(const ProcessInfo&, const ContainerInfo&)>;

/// The processes of all loops: read when a loop is found, handed to the BPF programs for captures, forgotten
/// when the last loop is gone. Unwind tables are shared between processes by file.
class ProcessTable {
 public:
  ProcessTable(Engine& engine, ProcFs procfs, std::shared_ptr<Debuginfod> servers = nullptr,
               ServiceNamer name_service = {})
      : engine_(engine),
        procfs_(std::move(procfs)),
        objects_(ObjectCache::kBudget, std::move(servers)),
        name_service_(std::move(name_service)) {}

  /// The process, read if it is new or another one has taken its pid.
  TracedProcess& get(uint32_t tgid, uint64_t start_boottime);
  TracedProcess* find(uint32_t tgid);
  /// Compiles the unwind tables of its files, so that get() has little left to do. False if there are more
  /// than is done ahead.
  bool prepare(uint32_t tgid);
  void forget(uint32_t tgid);

  /// Reads the mappings anew (dlopen, JIT), at most once a second.
  void refresh(TracedProcess& process, uint64_t now_ns);

  /// Whether the code that runtimes make is followed: it is of use to stacks only, and dear to follow.
  void follow_made_code(bool on) { follows_made_code_ = on; }
  bool follows(const TracedProcess& process) const { return follows_made_code_ || !process.makes_code; }

  /// Gives back what only speeds up later walks. Call now and then.
  void drop_idle() { objects_.drop_idle(); }
  /// Gives back all that can be read again; with `unload` also what captures need, in the kernel too, until
  /// load_again().
  void drop_memory(bool unload);
  void load_again();

  size_t size() const { return processes_.size(); }

 private:
  struct Table {
    lt_row_table rows{};
    uint32_t users = 0;
  };
  void load(TracedProcess& process);
  void add_tables(TracedProcess& process, const ProcessModules& modules);
  using Objects = std::vector<std::shared_ptr<ElfObject>>;
  bool give_to_kernel(TracedProcess& process, const Objects& objects);  ///< false: there was no room for all
  /// The table of code that the runtime made; the one before if there is no room for it.
  CodeTable add_code(TracedProcess& process, const Module& module);
  void release_tables(const ProcessModules& modules);

  Engine& engine_;
  ProcFs procfs_;
  ObjectCache objects_;
  ServiceNamer name_service_;
  bool follows_made_code_ = true;
  std::map<std::shared_ptr<ElfObject>, Table> tables_;
  std::unordered_map<uint32_t, TracedProcess> processes_;
};

}  // namespace looptrace
