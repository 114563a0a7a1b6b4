// SPDX-License-Identifier: Apache-2.0
#include "sinks/metrics/textfile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string_view>

#include "base/fd.h"
#include "sinks/metrics/prometheus.h"

namespace looptrace {
namespace {

Error failure(const std::string& path, int err) {
  std::string what = "write the metrics file " + path;
  if (err == ENOENT) what += " (create its directory first)";
  if (err == EACCES || err == EROFS)
    what += " (its directory must be writable: a new file replaces the old one)";
  if (err == ENOSPC || err == EDQUOT) what += " (free some space)";
  return {what, err};
}

Result<void> fill(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failure(path, errno);
    text.remove_prefix(static_cast<size_t>(n));
  }
  if (::fchmod(fd, 0644) != 0) return failure(path, errno);
  return {};
}

}  // namespace

Result<void> write_textfile(const std::string& path, const std::string& text) {
  // In the same directory, so that rename() can replace; hidden and without ".prom", so that no collector
  // reads it.
  const size_t slash = path.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  std::string temporary = path.substr(0, name) + '.' + path.substr(name) + ".XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return failure(path, errno);
  auto written = fill(fd.get(), text, path);
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0) written = failure(path, errno);
  if (!written) ::unlink(temporary.c_str());
  return written;
}

Result<void> TextfileSink::write() const {
  return write_textfile(path_, write_metrics(metrics_.copy(), Exposition::text));
}

}  // namespace looptrace
