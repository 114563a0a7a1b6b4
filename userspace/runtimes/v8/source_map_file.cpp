// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/source_map_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

class RootedFile {
 public:
  RootedFile(pid_t pid, const std::string& path)
      : fd_(open_in_root("/proc/" + std::to_string(pid) + "/root", path)) {
    if (fd_ && ::fstat(fd_.get(), &stat_) != 0) fd_ = {};
  }
  explicit operator bool() const { return static_cast<bool>(fd_); }
  size_t size() const { return static_cast<size_t>(stat_.st_size); }
  int64_t written() const { return to_ns(stat_.st_mtim); }

  /// The last `size` bytes, or all.
  std::string tail(size_t size) const {
    size = std::min(size, this->size());
    std::string bytes(size, '\0');
    size_t done = 0;
    while (done < size) {
      const ssize_t n = ::pread(fd_.get(), bytes.data() + done, size - done,
                                static_cast<off_t>(this->size() - size + done));
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    bytes.resize(done);
    return bytes;
  }

 private:
  UniqueFd fd_;
  struct stat stat_ {};
};

std::string directory_of(std::string_view path) { return std::string(path.substr(0, path.rfind('/') + 1)); }

}  // namespace

std::string_view mapping_url(std::string_view text) {
  for (size_t from = std::string_view::npos;;) {
    const size_t at = text.rfind("sourceMappingURL=", from);
    if (at == std::string_view::npos || at < 4) return {};
    const std::string_view before = text.substr(at - 4, 4);
    if (before == "//# " || before == "//@ ") {
      const std::string_view url = text.substr(at + 17);
      return url.substr(0, url.find_first_of(" \t\r\n"));
    }
    from = at - 1;
  }
}

std::string source_path(std::string_view directory, std::string_view source) {
  if (source.starts_with("file:")) return classify_script(source).file;
  if (source.find("://") != std::string_view::npos || directory.empty()) return std::string(source);
  const std::filesystem::path path = std::filesystem::path(directory) / std::filesystem::path(source);
  return path.lexically_normal().string();
}

std::unique_ptr<LocatedSourceMap> find_source_map(pid_t pid, const std::string& file) {
  if (!file.starts_with("/")) return nullptr;
  const auto started = start_time(pid);
  const RootedFile script(pid, file);
  if (!started || !script || script.written() > *started) return nullptr;
  std::string text = script.tail(kTail);
  // The end of a long line: the comment may begin before it.
  if (mapping_url(text).empty() && script.size() > kTail && script.size() <= SourceMap::kMaxText &&
      trim(text).find('\n') == std::string_view::npos) {
    text = script.tail(SourceMap::kMaxText);
  }
  const std::string_view url = mapping_url(text);

  std::string json, directory = directory_of(file);
  if (url.starts_with("data:")) {
    const size_t data = url.find("base64,");
    if (data == std::string_view::npos) return nullptr;
    json = decode_base64(url.substr(data + 7));
  } else {
    const std::string path = url.empty() ? file + ".map" : source_path(directory, url);
    const RootedFile map(pid, path);
    if (!map || map.size() > SourceMap::kMaxText || map.written() > *started) return nullptr;
    json = map.tail(SourceMap::kMaxText);
    directory = directory_of(path);
  }
  auto map = SourceMap::parse(json);
  if (!map) return nullptr;
  return std::make_unique<LocatedSourceMap>(LocatedSourceMap{std::move(*map), std::move(directory)});
}

}  // namespace looptrace::v8
