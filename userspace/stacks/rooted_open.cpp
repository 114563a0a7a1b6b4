// SPDX-License-Identifier: Apache-2.0
#include "stacks/rooted_open.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <vector>

#include "base/files.h"

namespace looptrace {
namespace {

constexpr int kMostLinks = 40;  // as the kernel has it

// Components yet to be walked, the next one last.
void push_components(std::vector<std::string>& ahead, std::string_view path) {
  const auto parts = split(path, '/');
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (!part->empty() && *part != ".") ahead.emplace_back(*part);
  }
}

UniqueFd nothing(int error) {
  errno = error;
  return {};
}

// The O_PATH descriptor of what `path` names below `root`. Step by step, with links read as text: openat2,
// which could do it at once, is refused by systemd's RestrictSUIDSGID (so with DynamicUser) and by old
// containers.
UniqueFd find_in_root(UniqueFd root, std::string_view path, bool follow_last) {
  std::vector<UniqueFd> above;  // the directories that were passed: what ".." goes back to
  above.push_back(std::move(root));
  std::vector<std::string> ahead;
  push_components(ahead, path);
  int links = 0;
  while (!ahead.empty()) {
    const std::string name = std::move(ahead.back());
    ahead.pop_back();
    if (name == "..") {
      if (above.size() > 1) above.pop_back();
      continue;
    }
    // O_PATH: opening a device or a FIFO for real can have effects of its own.
    UniqueFd next(::openat(above.back().get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat st {};
    if (!next || ::fstat(next.get(), &st) != 0) return {};
    if (!S_ISLNK(st.st_mode)) {
      if (!ahead.empty() && !S_ISDIR(st.st_mode)) return nothing(ENOTDIR);
      above.push_back(std::move(next));
      continue;
    }
    if ((ahead.empty() && !follow_last) || ++links > kMostLinks) return nothing(ELOOP);
    char target[PATH_MAX];
    const ssize_t length = ::readlinkat(next.get(), "", target, sizeof target);
    if (length < 0) return {};
    const std::string_view text(target, static_cast<size_t>(length));
    if (text.starts_with('/')) above.resize(1);
    push_components(ahead, text);
  }
  return std::move(above.back());
}

}  // namespace

UniqueFd open_in_root(const std::string& root, const std::string& path, bool follow_last) {
  UniqueFd directory(::open(root.empty() ? "/" : root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return {};
  const UniqueFd found = find_in_root(std::move(directory), path, follow_last);
  struct stat st {};
  if (!found || ::fstat(found.get(), &st) != 0) return {};
  if (!S_ISREG(st.st_mode)) return nothing(EINVAL);
  const std::string again = "/proc/self/fd/" + std::to_string(found.get());
  return UniqueFd(::open(again.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
}

}  // namespace looptrace
