// SPDX-License-Identifier: Apache-2.0
#include "stacks/jit_dump.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/files.h"
#include "stacks/byte_reader.h"
#include "stacks/module.h"
#include "stacks/perf_map.h"
#include "stacks/proc_maps.h"
#include "stacks/rooted_open.h"

namespace looptrace {
namespace {

constexpr uint32_t kMagic = 0x4a695444;  // "JiTD"
constexpr size_t kHeader = 40, kRecordHeader = 16;
enum RecordId : uint32_t { kLoad = 0, kMove = 1, kDebugInfo = 2 };

// V8's addresses of lines count from an ELF header that perf puts before the code (src/diagnostics/
// perf-jit.cc). Its functions are told by their names.
constexpr uint64_t kElfHeader = sizeof(Elf64_Ehdr);
bool is_v8(std::string_view name) {
  for (const std::string_view prefix : {"JS:", "Builtin:", "RegExp:", "BytecodeHandler:", "Script:", "Eval:"})
    if (name.starts_with(prefix)) return true;
  return false;
}

bool is_name(std::string_view text) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  return !text.empty() && std::none_of(text.begin(), text.end(), is_control) && to_utf8(text) == text;
}

bool read_all(int fd, uint64_t offset, char* into, size_t size) {
  while (size) {
    const ssize_t n = ::pread(fd, into, size, static_cast<off_t>(offset));
    if (n <= 0) return false;
    into += n;
    offset += static_cast<uint64_t>(n);
    size -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

std::optional<JitDump::Source> JitDump::source_of(pid_t pid, const ProcessModules& modules) {
  constexpr std::string_view kDeleted = " (deleted)";
  for (const Module& m : modules.all()) {
    std::string_view path = m.path;
    if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
    const std::string_view name = path.substr(path.rfind('/') + 1);
    if (!name.starts_with("jit-") || !name.ends_with(".dump")) continue;
    Source source;
    const std::string process = "/proc/" + std::to_string(pid);
    source.path = process + "/map_files/" + map_files_name(m.start, m.end);
    source.root = process + "/root";
    source.name = path;
    PerfMap::identity_of(pid, source.owners, source.pids);
    return source;
  }
  return std::nullopt;
}

void JitDump::clear() {
  functions_.clear();
  files_.clear();
  file_indexes_.clear();
  next_lines_.clear();
  header_.clear();
  lines_of_ = 0;
  held_ = 0;
  offset_ = 0;
}

bool JitDump::read_header(int fd) {
  std::string bytes(kHeader, '\0');
  if (!read_all(fd, 0, bytes.data(), bytes.size())) return false;
  if (!header_.empty()) return bytes == header_;
  ByteReader in(bytes);
  const auto magic = in.get<uint32_t>(), version = in.get<uint32_t>(), size = in.get<uint32_t>(),
             machine = in.get<uint32_t>();
  in.get<uint32_t>();
  const auto pid = in.get<uint32_t>();
  if (magic != kMagic || version != 1 || size < kHeader || size > 4096 || machine != EM_X86_64) return false;
  if (std::find(source_.pids.begin(), source_.pids.end(), pid) == source_.pids.end()) return false;
  header_ = std::move(bytes);
  offset_ = size;
  return true;
}

void JitDump::refresh() {
  struct stat st {};
  UniqueFd fd(::open(source_.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd && (errno == EPERM || errno == EACCES) && !source_.name.empty())
    fd = open_in_root(source_.root, source_.name, false);
  const auto& owners = source_.owners;
  if (!fd || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) ||
      (st.st_uid != 0 && std::find(owners.begin(), owners.end(), st.st_uid) == owners.end())) {
    clear();
    return;
  }
  const auto size = std::min(static_cast<uint64_t>(st.st_size), limits_.file_bytes);
  if (st.st_dev != device_ || st.st_ino != inode_ || size < offset_) clear();
  device_ = st.st_dev;
  inode_ = st.st_ino;
  if (!read_header(fd.get())) {
    clear();
    if (!read_header(fd.get())) return;
  }
  while (offset_ + kRecordHeader <= size) {
    char head[kRecordHeader];
    if (!read_all(fd.get(), offset_, head, sizeof head)) return;
    ByteReader in(std::string_view(head, sizeof head));
    const auto id = in.get<uint32_t>(), length = in.get<uint32_t>();
    if (length < kRecordHeader) {  // nothing can be found behind it
      offset_ = size;
      return;
    }
    if (length > size - offset_) return;  // not all there yet
    if (id == kLoad || id == kMove || id == kDebugInfo) {
      // A load's name ends long before its code does.
      const size_t most = id == kLoad ? 64 + limits_.name_bytes : limits_.record_bytes;
      const size_t body_size = length - kRecordHeader;
      if (id == kLoad || body_size <= most) {
        std::string body(std::min(body_size, most), '\0');
        if (!read_all(fd.get(), offset_ + kRecordHeader, body.data(), body.size())) return;
        read_record(id, body, body_size);
      }
    }
    offset_ += length;
  }
}

void JitDump::read_record(uint32_t id, std::string_view body, uint64_t whole_size) {
  if (id == kLoad) load(body, whole_size);
  if (id == kMove) move(body);
  if (id == kDebugInfo) read_lines(body);
}

void JitDump::load(std::string_view body, uint64_t whole_size) {
  ByteReader in(body);
  in.get<uint64_t>();  // pid, tid
  in.get<uint64_t>();  // vma: perf means the code's address by it
  const auto start = in.get<uint64_t>(), size = in.get<uint64_t>(), index = in.get<uint64_t>();
  if (in.failed() || size == 0 || size > whole_size || start + size < start) return;
  const std::string_view rest = body.substr(in.offset());
  Function function{start + size, index, at_most(rest.substr(0, rest.find('\0')), limits_.name_bytes), {}};
  if (lines_of_ == start) {
    const uint64_t shift = is_v8(function.name) ? kElfHeader : 0;
    for (Line& line : next_lines_) line.address -= shift;
    // Node 20 writes names that are no text, and what follows them cannot be told: then none of it is used.
    const auto plausible = [&](const Line& line) {
      return line.address >= start && line.address <= function.end && is_name(files_[line.file]);
    };
    if (std::all_of(next_lines_.begin(), next_lines_.end(), plausible)) {
      function.lines = std::move(next_lines_);
      const auto by_address = [](const Line& a, const Line& b) { return a.address < b.address; };
      std::stable_sort(function.lines.begin(), function.lines.end(), by_address);
    }
  }
  next_lines_.clear();
  lines_of_ = 0;
  insert(start, std::move(function));
}

void JitDump::move(std::string_view body) {
  ByteReader in(body);
  in.get<uint64_t>();
  in.get<uint64_t>();
  const auto from = in.get<uint64_t>(), to = in.get<uint64_t>(), size = in.get<uint64_t>(),
             index = in.get<uint64_t>();
  const auto it = functions_.find(from);
  if (in.failed() || it == functions_.end() || it->second.index != index || size == 0 || to + size < to)
    return;
  Function function = std::move(it->second);
  held_ -= cost(function);
  functions_.erase(it);
  function.end = to + size;
  for (Line& line : function.lines) line.address += to - from;
  insert(to, std::move(function));
}

void JitDump::read_lines(std::string_view body) {
  ByteReader in(body);
  lines_of_ = in.get<uint64_t>();
  const auto count = in.get<uint64_t>();
  next_lines_.clear();
  uint32_t file = 0;
  bool named = false;
  for (uint64_t i = 0; i < count; ++i) {
    const auto address = in.get<uint64_t>();
    const auto line = in.get<uint32_t>();
    in.get<uint32_t>();  // discriminator; a column in V8's
    const std::string_view name = in.c_string();
    if (in.failed()) break;
    if (name != "\xff") {  // "the same as before"
      file = file_index(at_most(name, limits_.name_bytes));
      named = true;
    }
    if (named) next_lines_.push_back({address, line, file});
  }
}

uint32_t JitDump::file_index(std::string_view name) {
  if (const auto it = file_indexes_.find(name); it != file_indexes_.end()) return it->second;
  const auto index = static_cast<uint32_t>(files_.size());
  files_.emplace_back(name);
  file_indexes_.emplace(name, index);
  held_ += 2 * name.size() + 128;
  return index;
}

size_t JitDump::cost(const Function& function) {
  return sizeof function + 48 + function.name.capacity() + function.lines.capacity() * sizeof(Line);
}

// Code that the new one overlaps is gone.
void JitDump::insert(uint64_t start, Function function) {
  auto it = functions_.upper_bound(start);
  if (it != functions_.begin() && std::prev(it)->second.end > start) --it;
  while (it != functions_.end() && it->first < function.end) {
    held_ -= cost(it->second);
    it = functions_.erase(it);
  }
  const size_t more = cost(function);
  if (functions_.size() >= limits_.functions || held_ + more > limits_.held_bytes) return;
  held_ += more;
  functions_.emplace(start, std::move(function));
}

std::optional<JitDump::Entry> JitDump::find(uint64_t address) const {
  auto it = functions_.upper_bound(address);
  if (it == functions_.begin()) return std::nullopt;
  --it;
  const Function& function = it->second;
  if (address >= function.end) return std::nullopt;
  Entry entry{it->first, function.end - it->first, function.name, {}, 0};
  const auto after = std::upper_bound(function.lines.begin(), function.lines.end(), address,
                                      [](uint64_t at, const Line& line) { return at < line.address; });
  if (after != function.lines.begin()) {
    const Line& line = *(after - 1);
    entry.file = files_[line.file];
    entry.line = line.line <= 0x7fffffff ? static_cast<int>(line.line) : 0;
  }
  return entry;
}

size_t JitDump::bytes() const { return held_ + sizeof *this; }

}  // namespace looptrace
