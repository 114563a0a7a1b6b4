// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

struct lt_row;

namespace looptrace {

class Debuginfod;
class ElfObject;

/// One executable mapping of a process, [start, end), tied to the file it maps.
struct Module {
  uint64_t start = 0, end = 0;
  uint64_t bias = 0;  ///< address - bias = the file's own virtual address; per mapping, not per file
  std::string path;   ///< as /proc/PID/maps has it; "[vdso]"; empty for anonymous (JIT) memory
  std::shared_ptr<ElfObject> object;  ///< null where the file is not readable ELF
  /// Of code without a file, where its runtime knows its frames; addresses are relative to `bias`, as a
  /// file's.
  std::shared_ptr<const std::vector<lt_row>> code_rows;

  /// Its unwind rows; null where there are none.
  const std::vector<lt_row>* rows() const;
};

/// ELF files shared by all traced processes: each is opened once per build-id (or device, inode and
/// mtime) and evicted, least recently used first, when the byte budget is passed and no process uses it.
class ObjectCache {
 public:
  /// `servers`: asked for debug files that are not here; null = none.
  explicit ObjectCache(size_t budget_bytes = kBudget, std::shared_ptr<Debuginfod> servers = nullptr);
  static constexpr size_t kBudget = 48u << 20;
  ~ObjectCache();
  ObjectCache(const ObjectCache&) = delete;
  ObjectCache& operator=(const ObjectCache&) = delete;

  /// The file behind one mapping of `pid`, opened through /proc/PID/map_files (right for deleted files,
  /// chroots and mount namespaces). `range` is "start-end" in hex as in /proc/PID/maps.
  Result<std::shared_ptr<ElfObject>> open(pid_t pid, const std::string& range, const std::string& path);

  /// The vDSO, copied out of `pid`'s memory.
  Result<std::shared_ptr<ElfObject>> open_vdso(pid_t pid, uint64_t start, uint64_t end);

  /// Evicts what the budget asks for. ProcessModules::load() ends with it; a new object does it too.
  void trim();

  /// ElfObject::drop_idle() of all.
  void drop_idle();
  /// Forgets all that nobody uses, and of the rest what can be built again.
  void drop_all();

  size_t bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The executable mappings of a process at one moment, sorted by start.
class ProcessModules {
 public:
  static Result<ProcessModules> load(pid_t pid, ObjectCache& cache);

  /// The mapping that holds `address`, or null.
  const Module* find(uint64_t address) const;

  const std::vector<Module>& all() const { return modules_; }

  /// [low, high) is one range of code that is in no file, mapped now or later, with these rows, relative to
  /// `low`.
  void cover(uint64_t low, uint64_t high, const std::shared_ptr<const std::vector<lt_row>>& rows);

 private:
  std::vector<Module> modules_;
};

}  // namespace looptrace
