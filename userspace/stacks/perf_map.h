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

/// The functions that a JIT compiler lists in /tmp/perf-PID.map: "start size name" lines, appended as code
/// is made. Addresses are used again, so the latest line wins. The traced process writes the file: it is
/// read as data nobody vouches for, up to fixed limits.
class PerfMap {
 public:
  struct Limits {
    uint64_t file_bytes = 64u << 20;
    size_t entries = 1u << 20;
    size_t name_bytes = 512;  ///< of one name; longer ones are cut short
  };

  /// `candidates` are tried in order; the first that is a regular file owned by root or by one of `owners`
  /// is the map. Links are not followed in the last component.
  struct Source {
    std::string root;
    std::vector<std::string> candidates;
    std::vector<uid_t> owners;
  };

  /// Where `pid` would write its map: its own /tmp, by its id in its own and in our pid namespace.
  static Source source_of(pid_t pid);

  /// The users that may have written files for `pid`, and what it may call itself: its ids in its own pid
  /// namespace and in ours.
  static void identity_of(pid_t pid, std::vector<uid_t>& owners, std::vector<uint32_t>& pids);

  explicit PerfMap(Source source) : PerfMap(std::move(source), Limits()) {}
  PerfMap(Source source, Limits limits);

  /// Reads what was appended since the last call; all of it if the file was replaced or truncated.
  void refresh();

  struct Entry {
    uint64_t start = 0;
    uint64_t size = 0;
    std::string_view name;  ///< until the next refresh()
  };
  std::optional<Entry> find(uint64_t address) const;

  size_t size() const { return ranges_.size(); }
  size_t bytes() const;

 private:
  struct Range {
    uint64_t end;
    uint64_t first;  // where the function starts, if its beginning was overwritten
    uint32_t name;
    uint32_t name_size;
  };

  void clear();
  UniqueFd open_trusted(struct stat& st) const;
  bool is_continued(int fd) const;
  void add_line(std::string_view line);
  void insert(uint64_t start, uint64_t end, std::string_view name);

  Source source_;
  Limits limits_;
  std::map<uint64_t, Range> ranges_;  // by start; disjoint
  std::string names_;
  std::string partial_;    // the last line, while it has no newline
  bool skipping_ = false;  // inside a line that is too long
  uint64_t offset_ = 0;
  std::string tail_;  // the last bytes before offset_: tells a rewritten file from a grown one
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace looptrace
