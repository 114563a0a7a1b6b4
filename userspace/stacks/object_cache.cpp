// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <compare>
#include <cstdio>
#include <functional>
#include <map>
#include <unordered_map>

#include "stacks/elf_object.h"
#include "stacks/module.h"
#include "stacks/proc_maps.h"
#include "stacks/rooted_open.h"

namespace looptrace {
namespace {

// Each object holds a file open: no more of those that nobody uses.
constexpr size_t kMaxUnused = 128;
constexpr uint64_t kMaxVdso = 1u << 20;

struct FileId {
  uint64_t device, inode, size;
  int64_t seconds, nanoseconds;
  uid_t owner;
  auto operator<=>(const FileId&) const = default;
};

FileId file_id(const struct stat& st) {
  return {st.st_dev,         st.st_ino,          static_cast<uint64_t>(st.st_size),
          st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_uid};
}

// A build-id is what a file claims. Its size and its owner are in the key so that an unprivileged process
// cannot pass a file off as the system's libc and spoil everyone's stacks.
struct ContentId {
  std::string build_id;
  uint64_t size;
  uint64_t owner;
  auto operator<=>(const ContentId&) const = default;
};

// Where the process's root directory is not ours: there its separate debug files may be.
std::string foreign_root(pid_t pid) {
  const std::string root = "/proc/" + std::to_string(pid) + "/root";
  struct stat theirs {
  }, ours{};
  if (::stat(root.c_str(), &theirs) != 0 || ::stat("/", &ours) != 0) return {};
  return theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino ? std::string() : root;
}

}  // namespace

struct ObjectCache::Impl {
  struct Entry {
    std::shared_ptr<ElfObject> object;
    uint64_t used = 0;  // tick of the last open
    std::vector<FileId> files;
    ContentId content;
  };

  std::shared_ptr<Debuginfod> servers;
  size_t budget;
  uint64_t tick = 0;
  std::unordered_map<ElfObject*, Entry> entries;
  std::map<FileId, ElfObject*> by_file;
  std::map<ContentId, ElfObject*> by_content;

  std::shared_ptr<ElfObject> use(ElfObject* key) {
    Entry& entry = entries.at(key);
    entry.used = ++tick;
    return entry.object;
  }

  void erase(ElfObject* key) {
    const auto it = entries.find(key);
    for (const FileId& file : it->second.files) by_file.erase(file);
    if (!it->second.content.build_id.empty()) by_content.erase(it->second.content);
    entries.erase(it);
  }

  size_t bytes() const {
    size_t sum = 0;
    for (const auto& [key, entry] : entries)
      sum += entry.object->bytes() + sizeof entry + entry.files.capacity() * sizeof(FileId) + 128;
    return sum;
  }

  /// Least recently used first.
  std::vector<std::pair<uint64_t, ElfObject*>> unused_objects() const {
    std::vector<std::pair<uint64_t, ElfObject*>> unused;
    for (const auto& [key, entry] : entries)
      if (entry.object.use_count() == 1) unused.emplace_back(entry.used, key);
    std::sort(unused.begin(), unused.end());
    return unused;
  }

  void evict() {
    const auto unused = unused_objects();
    size_t held = bytes(), left = unused.size();
    for (const auto& [used, key] : unused) {
      if (held <= budget && left <= kMaxUnused) break;
      held -= std::min(held, key->bytes());
      --left;
      erase(key);
    }
    // Objects in use stay, but their DWARF can be read again.
    if (held > budget)
      for (auto& [key, entry] : entries) entry.object->drop_dwarf();
  }

  // Adds `object`, or gives the one that is there with the same content.
  std::shared_ptr<ElfObject> add(std::shared_ptr<ElfObject> object, const FileId* file, uint64_t size,
                                 uint64_t owner) {
    ContentId content{object->build_id(), size, owner};
    ElfObject* key = object.get();
    const auto same = content.build_id.empty() ? by_content.end() : by_content.find(content);
    if (same != by_content.end()) {
      key = same->second;
    } else {
      if (!content.build_id.empty()) by_content.emplace(content, key);
      entries[key] = Entry{std::move(object), 0, {}, std::move(content)};
    }
    if (file && by_file.emplace(*file, key).second) {
      // A file touched again and again under one build-id must not grow this list for ever.
      constexpr size_t kMaxFiles = 256;
      auto& files = entries.at(key).files;
      if (files.size() >= kMaxFiles) {
        by_file.erase(files.front());
        files.erase(files.begin());
      }
      files.push_back(*file);
    }
    auto result = use(key);
    evict();
    return result;
  }
};

ObjectCache::ObjectCache(size_t budget_bytes, std::shared_ptr<Debuginfod> servers)
    : impl_(std::make_unique<Impl>()) {
  impl_->budget = budget_bytes;
  impl_->servers = std::move(servers);
}
ObjectCache::~ObjectCache() = default;

Result<std::shared_ptr<ElfObject>> ObjectCache::open(pid_t pid, const std::string& range,
                                                     const std::string& path) {
  uint64_t start = 0, end = 0;
  char rest = 0;
  if (std::sscanf(range.c_str(), "%lx-%lx%c", &start, &end, &rest) != 2)
    return Error{"not a mapping: " + range, EINVAL};
  const std::string process = "/proc/" + std::to_string(pid);
  const std::string link = process + "/map_files/" + map_files_name(start, end);
  struct stat st {};
  UniqueFd fd;
  if (::stat(link.c_str(), &st) == 0) {
    if (!S_ISREG(st.st_mode)) return Error{path + " is not a regular file"};  // a device: opening it may act
  } else if (errno == EPERM || errno == EACCES) {
    // map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. Without, the path has to do.
    fd = open_in_root(process + "/root", path);
    if (!fd || ::fstat(fd.get(), &st) != 0)
      return Error{"open " + path + " of process " + std::to_string(pid), errno};
  } else {
    return Error{"open " + link + " (" + path + ")", errno};
  }
  const FileId id = file_id(st);
  if (const auto known = impl_->by_file.find(id); known != impl_->by_file.end())
    return impl_->use(known->second);

  if (!fd) {
    fd = UniqueFd(::open(link.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    struct stat opened {};
    if (!fd || ::fstat(fd.get(), &opened) != 0) return Error{"open " + link + " (" + path + ")", errno};
    if (file_id(opened) != id) return Error{"open " + link + " (" + path + "): the mapping changed"};
  }
  auto object = ElfObject::from_fd(std::move(fd), path, foreign_root(pid), impl_->servers);
  if (!object) return object.error();
  return impl_->add(std::move(*object), &id, id.size, id.owner);
}

Result<std::shared_ptr<ElfObject>> ObjectCache::open_vdso(pid_t pid, uint64_t start, uint64_t end) {
  if (start >= end || end - start > kMaxVdso) return Error{"copy the vDSO: no sensible range", EINVAL};
  std::vector<uint8_t> image(end - start);
  iovec local{image.data(), image.size()};
  iovec remote{reinterpret_cast<void*>(start), image.size()};
  const ssize_t n = ::process_vm_readv(pid, &local, 1, &remote, 1, 0);
  if (n != static_cast<ssize_t>(image.size()))
    return Error{"copy the vDSO of process " + std::to_string(pid), n < 0 ? errno : EIO};
  // A process may write to its copy: the content itself stands for the owner in the key.
  const uint64_t digest =
      std::hash<std::string_view>()({reinterpret_cast<const char*>(image.data()), image.size()});
  auto object = ElfObject::from_memory(std::move(image), "[vdso]");
  if (!object) return object.error();
  return impl_->add(std::move(*object), nullptr, end - start, digest);
}

void ObjectCache::trim() { impl_->evict(); }

void ObjectCache::drop_idle() {
  for (auto& [key, entry] : impl_->entries) entry.object->drop_idle();
}

void ObjectCache::drop_all() {
  for (const auto& [used, key] : impl_->unused_objects()) impl_->erase(key);
  for (auto& [key, entry] : impl_->entries) entry.object->drop_tables();
}

size_t ObjectCache::bytes() const { return impl_->bytes(); }

}  // namespace looptrace
