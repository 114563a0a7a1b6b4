// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "runtimes/v8/heap.h"
#include "runtimes/v8/line_ends.h"
#include "runtimes/v8/script_name.h"
#include "runtimes/v8/source_map_file.h"

namespace looptrace::v8 {

/// A script's members that tell it from another at the same address.
struct ScriptIdentity {
  uint64_t source = 0, name = 0, id = 0;
  bool operator==(const ScriptIdentity&) const = default;
};

/// What is kept of one script: its name, and what its text tells once that was asked for.
struct Script {
  uint64_t address = 0;
  ScriptIdentity identity;
  ScriptName name;
  int line_offset = 0, column_offset = 0;  ///< of vm.Script's options: where in its file the text begins
  LineEnds lines;
  std::unique_ptr<LocatedSourceMap> map;  ///< null if there is none
  bool text_read = false;

  size_t bytes() const {
    return 400 + name.file.capacity() + name.module.capacity() + lines.bytes() + (map ? map->map.bytes() : 0);
  }
};

/// Scripts by address, least recently used ones gone when there are more than 2048 or when they hold more
/// than 8 MiB. Not thread-safe.
class ScriptCache {
 public:
  explicit ScriptCache(Heap& heap) : heap_(heap) {}

  /// The script at `address`, looked at anew; null if there is none.
  std::shared_ptr<Script> find(uint64_t address);

  /// Where a position of the script is: in the file that it was made from, where a source map tells.
  struct Place {
    ScriptName name;
    int line = 0;  ///< from 1; 0 = not known
  };
  Place place(Script& script, int position);

 private:
  void read_text(Script& script);
  void evict();

  Heap& heap_;
  std::list<std::shared_ptr<Script>> order_;  // most recently used first
  std::unordered_map<uint64_t, std::list<std::shared_ptr<Script>>::iterator> index_;
};

}  // namespace looptrace::v8
