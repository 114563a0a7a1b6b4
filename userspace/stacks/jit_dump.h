// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"

namespace looptrace {

class ProcessModules;

/// The functions and lines that a JIT compiler writes into jit-PID.dump (linux/tools/perf/Documentation/
/// jitdump-specification.txt, version 1). It is found as perf finds it: the process has mapped the file
/// executable, to mark it. Addresses are used again, so the latest code wins. The traced process writes the
/// file: it is read as data nobody vouches for, up to fixed limits.
class JitDump {
 public:
  struct Limits {
    uint64_t file_bytes = 1u << 30;  ///< code is in the file, and skipped
    size_t functions = 1u << 20;
    size_t held_bytes = 64u << 20;   ///< of names and lines
    size_t record_bytes = 4u << 20;  ///< of one record without its code; longer ones are skipped
    size_t name_bytes = 512;
  };

  /// `path` is tried as it is; where that is not permitted, `name` below `root`. It must be a regular file
  /// owned by root or by one of `owners`, and say that it was written by one of `pids`.
  struct Source {
    std::string path;
    std::vector<uid_t> owners;
    std::vector<uint32_t> pids;
    std::string root = {}, name = {};
  };

  /// The dump that `pid` has mapped, opened through /proc/PID/map_files, which is right for deleted files and
  /// in other mount namespaces, and takes a capability more than tracing does; nothing if there is none.
  static std::optional<Source> source_of(pid_t pid, const ProcessModules& modules);

  explicit JitDump(Source source) : JitDump(std::move(source), Limits()) {}
  JitDump(Source source, Limits limits) : source_(std::move(source)), limits_(limits) {}

  const Source& source() const { return source_; }

  /// Reads whole records that were appended since the last call; all if the file was replaced or truncated.
  void refresh();

  struct Entry {
    uint64_t start = 0;
    uint64_t size = 0;
    std::string_view name;  ///< until the next refresh(), as `file`
    std::string_view file;  ///< empty if the dump has no lines for it
    int line = 0;
  };
  std::optional<Entry> find(uint64_t address) const;

  size_t size() const { return functions_.size(); }
  size_t bytes() const;

 private:
  struct Line {
    uint64_t address;
    uint32_t line;
    uint32_t file;  // index in files_
  };
  struct Function {
    uint64_t end;
    uint64_t index;  // the compiler's own number of it, which a move names again
    std::string name;
    std::vector<Line> lines;  // by address
  };

  void clear();
  bool read_header(int fd);
  void read_record(uint32_t id, std::string_view body, uint64_t whole_size);
  void load(std::string_view body, uint64_t whole_size);
  void move(std::string_view body);
  void read_lines(std::string_view body);
  void insert(uint64_t start, Function function);
  static size_t cost(const Function& function);
  uint32_t file_index(std::string_view name);

  Source source_;
  Limits limits_;
  std::map<uint64_t, Function> functions_;  // by start; disjoint
  std::vector<std::string> files_;
  std::map<std::string, uint32_t, std::less<>> file_indexes_;
  uint64_t lines_of_ = 0;  // the code that next_lines_ is for: its record comes before the code's
  std::vector<Line> next_lines_;
  size_t held_ = 0;
  uint64_t offset_ = 0;
  std::string header_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace looptrace
