// SPDX-License-Identifier: Apache-2.0
#include "stacks/rooted_open.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace looptrace {

UniqueFd open_in_root(const std::string& root, const std::string& path, bool follow_last) {
  const UniqueFd directory(::open(root.empty() ? "/" : root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return {};
  open_how how{};
  // O_PATH first: opening a device for real can have effects of its own.
  how.flags = static_cast<uint64_t>(O_PATH | O_CLOEXEC | (follow_last ? 0 : O_NOFOLLOW));
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const UniqueFd found(
      static_cast<int>(::syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how)));
  struct stat st {};
  if (!found || ::fstat(found.get(), &st) != 0 || !S_ISREG(st.st_mode)) return {};
  const std::string again = "/proc/self/fd/" + std::to_string(found.get());
  return UniqueFd(::open(again.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
}

}  // namespace looptrace
