// SPDX-License-Identifier: Apache-2.0
#include "stacks/perf_map.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "base/files.h"
#include "stacks/rooted_open.h"

namespace looptrace {
namespace {

constexpr size_t kMaxLine = 4096;
constexpr size_t kTail = 64;

// The numbers of a line of /proc/PID/status: "Uid:\t1000\t1000\t1000\t1000".
std::vector<uint64_t> status_numbers(std::string_view status, std::string_view key) {
  std::vector<uint64_t> numbers;
  for (const std::string_view line : split(status, '\n')) {
    if (!line.starts_with(key)) continue;
    for (const std::string_view part : split(line.substr(key.size()), '\t')) {
      uint64_t value = 0;
      if (std::from_chars(part.data(), part.data() + part.size(), value).ec == std::errc())
        numbers.push_back(value);
    }
  }
  return numbers;
}

}  // namespace

void PerfMap::identity_of(pid_t pid, std::vector<uid_t>& owners, std::vector<uint32_t>& pids) {
  const auto status = read_file("/proc/" + std::to_string(pid) + "/status");
  if (!status) return;
  for (const uint64_t uid : status_numbers(*status, "Uid:")) owners.push_back(static_cast<uid_t>(uid));
  const std::vector<uint64_t> ids = status_numbers(*status, "NSpid:");
  if (!ids.empty()) pids.push_back(static_cast<uint32_t>(ids.back()));
  if (ids.empty() || ids.back() != static_cast<uint64_t>(pid)) pids.push_back(static_cast<uint32_t>(pid));
}

PerfMap::Source PerfMap::source_of(pid_t pid) {
  Source source;
  source.root = "/proc/" + std::to_string(pid) + "/root";
  std::vector<uint32_t> pids;
  identity_of(pid, source.owners, pids);
  for (const uint32_t id : pids) source.candidates.push_back("/tmp/perf-" + std::to_string(id) + ".map");
  return source;
}

PerfMap::PerfMap(Source source, Limits limits) : source_(std::move(source)), limits_(limits) {}

void PerfMap::clear() {
  ranges_.clear();
  names_.clear();
  names_.shrink_to_fit();
  partial_.clear();
  skipping_ = false;
  offset_ = 0;
  tail_.clear();
}

bool PerfMap::is_continued(int fd) const {
  std::array<char, kTail> now;
  const ssize_t n = ::pread(fd, now.data(), tail_.size(), static_cast<off_t>(offset_ - tail_.size()));
  return n == static_cast<ssize_t>(tail_.size()) && tail_ == std::string_view(now.data(), tail_.size());
}

UniqueFd PerfMap::open_trusted(struct stat& st) const {
  for (const std::string& path : source_.candidates) {
    UniqueFd fd = open_in_root(source_.root, path, false);
    if (!fd || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) continue;
    const auto& owners = source_.owners;
    if (st.st_uid == 0 || std::find(owners.begin(), owners.end(), st.st_uid) != owners.end()) return fd;
  }
  return {};
}

void PerfMap::refresh() {
  struct stat st {};
  const UniqueFd fd = open_trusted(st);
  if (!fd) {
    clear();
    inode_ = 0;
    return;
  }
  if (st.st_dev != device_ || st.st_ino != inode_ || static_cast<uint64_t>(st.st_size) < offset_ ||
      !is_continued(fd.get())) {
    clear();
    device_ = st.st_dev;
    inode_ = st.st_ino;
  }
  std::array<char, 65536> chunk;
  while (offset_ < limits_.file_bytes) {
    const auto want = static_cast<size_t>(std::min<uint64_t>(chunk.size(), limits_.file_bytes - offset_));
    const ssize_t n = ::pread(fd.get(), chunk.data(), want, static_cast<off_t>(offset_));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    offset_ += static_cast<uint64_t>(n);
    std::string_view rest(chunk.data(), static_cast<size_t>(n));
    tail_.append(rest.substr(rest.size() - std::min(rest.size(), kTail)));
    if (tail_.size() > kTail) tail_.erase(0, tail_.size() - kTail);
    while (!rest.empty()) {
      const size_t newline = rest.find('\n');
      const std::string_view piece = rest.substr(0, newline);
      if (!skipping_) {
        if (newline != std::string_view::npos && partial_.empty()) {
          add_line(piece);
        } else {
          partial_.append(piece.substr(0, kMaxLine + 1 - std::min(partial_.size(), kMaxLine)));
          skipping_ = partial_.size() > kMaxLine;
        }
      }
      if (newline == std::string_view::npos) break;
      if (!skipping_ && !partial_.empty()) add_line(partial_);
      partial_.clear();
      skipping_ = false;
      rest.remove_prefix(newline + 1);
    }
  }
}

void PerfMap::add_line(std::string_view line) {
  const auto take_hex = [&](uint64_t& value) {
    if (line.starts_with("0x")) line.remove_prefix(2);
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value, 16);
    if (error != std::errc() || end == line.data() + line.size() || *end != ' ') return false;
    line.remove_prefix(static_cast<size_t>(end - line.data()) + 1);
    return true;
  };
  uint64_t start, size;
  if (line.size() > kMaxLine || !take_hex(start) || !take_hex(size) || line.empty()) return;
  if (size == 0 || start + size < start) return;
  insert(start, start + size, at_most(line, limits_.name_bytes));
}

void PerfMap::insert(uint64_t start, uint64_t end, std::string_view name) {
  // One new range may cut an old one in two.
  if (ranges_.size() + 2 > limits_.entries) return;
  auto it = ranges_.lower_bound(start);
  if (it != ranges_.begin()) {
    const auto before = std::prev(it);
    Range& old = before->second;
    if (old.end > end) ranges_.emplace(end, Range{old.end, old.first, old.name, old.name_size});
    if (old.end > start) old.end = start;
    it = ranges_.lower_bound(start);
  }
  while (it != ranges_.end() && it->first < end) {
    const Range old = it->second;
    it = ranges_.erase(it);
    if (old.end > end) {
      ranges_.emplace(end, old);
      break;
    }
  }
  ranges_.emplace(
      start, Range{end, start, static_cast<uint32_t>(names_.size()), static_cast<uint32_t>(name.size())});
  names_.append(name);
}

std::optional<PerfMap::Entry> PerfMap::find(uint64_t address) const {
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return std::nullopt;
  --it;
  const Range& range = it->second;
  if (address >= range.end) return std::nullopt;
  return Entry{range.first, range.end - range.first,
               std::string_view(names_).substr(range.name, range.name_size)};
}

size_t PerfMap::bytes() const {
  constexpr size_t kNode = 32 + sizeof(std::pair<const uint64_t, Range>);
  return ranges_.size() * kNode + names_.capacity() + sizeof *this;
}

}  // namespace looptrace
