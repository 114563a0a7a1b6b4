// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/source_map_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/files.h"
#include "runtimes/v8/script_name.h"
#include "stacks/rooted_open.h"

namespace looptrace::v8 {
namespace {

// A comment at the end; longer where it holds the map itself.
constexpr size_t kTail = 64u << 10;

constexpr int64_t kNsPerSecond = 1'000'000'000;
// The kernel tells a process's start to 10 ms and a file's time to a timer tick.
constexpr int64_t kSlack = 20'000'000;

int64_t to_ns(const timespec& t) { return int64_t{t.tv_sec} * kNsPerSecond + t.tv_nsec; }

// When the process began (field 22 of /proc/PID/stat), as a time of day.
std::optional<int64_t> start_time(pid_t pid) {
  const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  if (!stat) return std::nullopt;
  const size_t comm = stat->rfind(')');
  if (comm == std::string::npos || comm + 2 > stat->size()) return std::nullopt;
  const auto fields = split(std::string_view(*stat).substr(comm + 2), ' ');
  if (fields.size() < 20) return std::nullopt;
  const int64_t ticks = std::strtoll(std::string(fields[19]).c_str(), nullptr, 10);
  timespec now{}, since_boot{};
  clock_gettime(CLOCK_REALTIME, &now);
  clock_gettime(CLOCK_BOOTTIME, &since_boot);
  return to_ns(now) - to_ns(since_boot) + ticks * (kNsPerSecond / sysconf(_SC_CLK_TCK)) + kSlack;
}

// All of a map that was there when the process began.
std::string read_map(pid_t pid, const std::string& path) {
  const auto started = start_time(pid);
  const UniqueFd fd = open_in_root("/proc/" + std::to_string(pid) + "/root", path);
  struct stat st {};
  if (!started || !fd || ::fstat(fd.get(), &st) != 0 || to_ns(st.st_mtim) > *started) return {};
  if (static_cast<uint64_t>(st.st_size) > SourceMap::kMaxText) return {};
  std::string text(static_cast<size_t>(st.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::pread(fd.get(), text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

std::string directory_of(std::string_view path) { return std::string(path.substr(0, path.rfind('/') + 1)); }

}  // namespace

std::string_view comment_value(std::string_view text, std::string_view name) {
  for (size_t from = std::string_view::npos;;) {
    const size_t at = text.rfind(name, from);
    if (at == std::string_view::npos || at < 4) return {};
    const std::string_view before = text.substr(at - 4, 4), after = text.substr(at + name.size());
    if ((before == "//# " || before == "//@ ") && after.starts_with("="))
      return after.substr(1, after.find_first_of(" \t\r\n") - 1);
    from = at - 1;
  }
}

std::string find_comment(const TextEnd& end, std::string_view name) {
  std::string text = end(kTail);
  // The end of a long line: the comment may begin before it.
  if (comment_value(text, name).empty() && text.size() >= kTail &&
      trim(text).find('\n') == std::string_view::npos)
    text = end(SourceMap::kMaxText);
  return std::string(comment_value(text, name));
}

std::string source_path(std::string_view directory, std::string_view source) {
  if (source.starts_with("file:")) return classify_script(source).file;
  if (source.find("://") != std::string_view::npos || directory.empty()) return std::string(source);
  const std::filesystem::path path = std::filesystem::path(directory) / std::filesystem::path(source);
  return path.lexically_normal().string();
}

std::unique_ptr<LocatedSourceMap> find_source_map(pid_t pid, const std::string& file, const TextEnd& end) {
  const std::string url = find_comment(end, "sourceMappingURL");
  std::string json, directory;
  if (file.starts_with("/")) directory = directory_of(file);
  if (url.starts_with("data:")) {
    const size_t data = url.find("base64,");
    if (data == std::string::npos) return nullptr;
    json = decode_base64(std::string_view(url).substr(data + 7));
  } else if (!directory.empty()) {
    const std::string path = url.empty() ? file + ".map" : source_path(directory, url);
    json = read_map(pid, path);
    directory = directory_of(path);
  }
  auto map = SourceMap::parse(json);
  if (!map) return nullptr;
  return std::make_unique<LocatedSourceMap>(LocatedSourceMap{std::move(*map), std::move(directory)});
}

}  // namespace looptrace::v8
