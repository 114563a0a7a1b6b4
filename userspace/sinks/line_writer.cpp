// SPDX-License-Identifier: Apache-2.0
#include "sinks/line_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace looptrace {
namespace {

// Records tell what a host runs and talks to: not for everyone.
constexpr mode_t kFileMode = 0640;

bool ends_inside_a_line(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) return false;
  char last = '\n';
  return ::pread(fd.get(), &last, 1, status.st_size - 1) == 1 && last != '\n';
}

Result<UniqueFd> open_for_append(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kFileMode));
  if (fd) return fd;
  const int err = errno;
  std::string what = "open " + path + " for writing";
  if (err == ENOENT) what += " (create its directory first)";
  if (err == EACCES || err == EROFS) what += " (choose another file with -o)";
  return Error{what, err};
}

std::string write_failure(const std::string& name, int err) {
  std::string what = "write to " + name;
  if (err == ENOSPC || err == EDQUOT) what += " (free some space, or choose another file with -o)";
  return what;
}

}  // namespace

LineWriter::LineWriter(int borrowed, UniqueFd owned, std::string name)
    : borrowed_(borrowed), owned_(std::move(owned)), name_(std::move(name)) {}

LineWriter LineWriter::borrow(int fd, std::string name) { return {fd, UniqueFd(), std::move(name)}; }

Result<LineWriter> LineWriter::append_to(const std::string& path) {
  auto fd = open_for_append(path);
  if (!fd) return fd.error();
  LineWriter writer(-1, std::move(*fd), path);
  writer.torn_ = ends_inside_a_line(path);
  return writer;
}

Result<void> LineWriter::write(std::string_view text) {
  std::string mended;
  if (torn_) {
    mended.reserve(text.size() + 1);
    mended += '\n';
    mended += text;
    text = mended;
  }
  while (!text.empty()) {
    const ssize_t n = ::write(fd(), text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
      if (n > 0) torn_ = !text.empty();
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      // A pipe that its other user set non-blocking, as Node does.
      pollfd room{fd(), POLLOUT, 0};
      if (::poll(&room, 1, -1) >= 0 || errno == EINTR) continue;
    }
    return Error{write_failure(name_, errno), errno};
  }
  return {};
}

Result<void> LineWriter::reopen() {
  if (!owned_) return {};
  auto fd = open_for_append(name_);
  if (!fd) return fd.error();
  owned_ = std::move(*fd);
  torn_ = ends_inside_a_line(name_);
  return {};
}

bool is_reader_gone(const Error& error) { return error.err == EPIPE; }

}  // namespace looptrace
