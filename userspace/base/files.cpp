// SPDX-License-Identifier: Apache-2.0
#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>

#include "base/fd.h"

namespace looptrace {

namespace {

Result<std::string> read_whole(const UniqueFd& fd, const std::string& path, size_t limit) {
  std::string text;
  std::array<char, 16384> chunk;
  while (true) {
    const ssize_t n = ::read(fd.get(), chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error{"read " + path, errno};
    if (n == 0) return text;
    if (text.size() + static_cast<size_t>(n) > limit) return Error{"read " + path, EFBIG};
    text.append(chunk.data(), static_cast<size_t>(n));
  }
}

}  // namespace

Result<std::string> read_file(const std::string& path, size_t limit) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Error{"open " + path, errno};
  return read_whole(fd, path, limit);
}

Result<std::string> read_regular_file(const std::string& path, size_t limit) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) return Error{"open " + path, errno};
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return Error{"look at " + path, errno};
  if (!S_ISREG(status.st_mode)) return Error{path + " is no regular file"};
  return read_whole(fd, path, limit);
}

Result<std::string> read_link(const std::string& path) {
  std::array<char, PATH_MAX> target;
  const ssize_t n = ::readlink(path.c_str(), target.data(), target.size());
  if (n < 0) return Error{"read the link " + path, errno};
  return std::string(target.data(), static_cast<size_t>(n));
}

bool exists(const std::string& path) { return ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_EACCESS) == 0; }

bool readable(const std::string& path) { return ::faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) == 0; }

std::vector<std::string_view> split(std::string_view text, char sep) {
  std::vector<std::string_view> parts;
  size_t from = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i == text.size() || text[i] == sep) {
      parts.push_back(text.substr(from, i - from));
      from = i + 1;
    }
  }
  return parts;
}

std::string_view trim(std::string_view text) {
  const char* blanks = " \t\r\n";
  const size_t first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

namespace {

// Length of the valid UTF-8 sequence at `s`, or 0 (Unicode 15, table 3-7: no surrogates, no overlong forms).
size_t utf8_length(std::string_view s) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const auto tail = [&](size_t i) { return i < s.size() && (at(i) & 0xc0) == 0x80; };
  const unsigned char c = at(0);
  if (c < 0x80) return 1;
  if (c >= 0xc2 && c <= 0xdf) return tail(1) ? 2 : 0;
  if (c >= 0xe0 && c <= 0xef) {
    if (!tail(1) || !tail(2)) return 0;
    if (c == 0xe0 && at(1) < 0xa0) return 0;
    if (c == 0xed && at(1) > 0x9f) return 0;
    return 3;
  }
  if (c >= 0xf0 && c <= 0xf4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (c == 0xf0 && at(1) < 0x90) return 0;
    if (c == 0xf4 && at(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

std::string to_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t n = utf8_length(bytes);
    if (n) {
      out.append(bytes.substr(0, n));
      bytes.remove_prefix(n);
    } else {
      out += "\xef\xbf\xbd";
      bytes.remove_prefix(1);
    }
  }
  return out;
}

std::string_view whole_characters(std::string_view beginning) {
  size_t lead = beginning.size();  // of the last character
  while (lead > 0 && beginning.size() - lead < 4) {
    const auto c = static_cast<unsigned char>(beginning[--lead]);
    if ((c & 0xc0) == 0x80) continue;
    const size_t length = c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return beginning.size() - lead < length ? beginning.substr(0, lead) : beginning;
  }
  return beginning;
}

std::string cut_short(std::string_view beginning) {
  return std::string(whole_characters(beginning)) + "\xe2\x80\xa6";
}

std::string at_most(std::string_view text, size_t limit) {
  return text.size() <= limit ? std::string(text) : cut_short(text.substr(0, limit));
}

}  // namespace looptrace
