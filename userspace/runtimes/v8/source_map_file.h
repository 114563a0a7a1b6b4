// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "runtimes/v8/source_map.h"

namespace looptrace::v8 {

/// The source map of a script and where it lies.
struct LocatedSourceMap {
  SourceMap map;
  std::string directory;  ///< that its sources' names start from
};

/// Looks for the map of the script `file` of process `pid`: by the script's last sourceMappingURL comment (a
/// file beside it, or the map itself as data: URL), else FILE.map. All files are opened in the process's own
/// root. Null if there is none, or if it was written after the process began: it may belong to another build.
std::unique_ptr<LocatedSourceMap> find_source_map(pid_t pid, const std::string& file);

/// `source` as a path, if it is relative to `directory`; URLs of other kinds (webpack://) stay as they are.
std::string source_path(std::string_view directory, std::string_view source);

/// What follows the last "//# sourceMappingURL=" in `text`, up to the end of its line; empty if there is
/// none.
std::string_view mapping_url(std::string_view text);

}  // namespace looptrace::v8
