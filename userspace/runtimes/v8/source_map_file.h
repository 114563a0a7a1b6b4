// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
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

/// Gives the last characters of a script's text, as many as asked for or all.
using TextEnd = std::function<std::string(size_t)>;

/// Looks for the map of the script `file` of process `pid`. The script's last sourceMappingURL comment tells:
/// it is the map itself (a data: URL, as loaders leave it that compile in memory), or names a file beside the
/// script; without one, FILE.map. Files are opened in the process's own root. Null if there is none, or if
/// the file was written after the process began: it may belong to another build.
std::unique_ptr<LocatedSourceMap> find_source_map(pid_t pid, const std::string& file, const TextEnd& end);

/// `source` as a path, if it is relative to `directory`; URLs of other kinds (webpack://) stay as they are.
std::string source_path(std::string_view directory, std::string_view source);

/// What follows the last "//# NAME=" in `text`, up to the end of its line; empty if there is none.
std::string_view comment_value(std::string_view text, std::string_view name);

/// The same of a script's text, of whose end no more is read than it takes.
std::string find_comment(const TextEnd& end, std::string_view name);

}  // namespace looptrace::v8
