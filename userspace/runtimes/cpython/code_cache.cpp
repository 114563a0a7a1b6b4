// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/code_cache.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "runtimes/cpython/py_string.h"

namespace looptrace::cpython {
namespace {

constexpr size_t kMaxEntries = 16384;
constexpr size_t kMaxBytes = 8u << 20;
constexpr size_t kMaxLineTable = 4u << 20;
constexpr size_t kReadAtOnce = 512u << 10;
constexpr size_t kMaxSources = 8192;

// List and hash nodes with their allocator's overhead.
size_t weight(const Code& code) {
  return 232 + code.function.capacity() + (code.lines ? code.lines->capacity() : 0);
}

template <typename T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// A live object begins with its count of references, of 32 bits (3.14+: and flags in the upper 16). Freed
// small ones begin with the address of other freed memory, or with nothing; what follows may stay as it was.
bool is_freed(const uint8_t* object) {
  const auto word = load<uint64_t>(object);
  return static_cast<uint32_t>(word) == 0 || (word >> 32 & 0xffff) != 0;
}

}  // namespace

CodeCache::CodeCache(const RemoteMemory& memory, const Offsets& offsets, uint64_t code_type)
    : memory_(memory), offsets_(offsets), code_type_(code_type) {}

const Code* CodeCache::find(const lt_py_frame& frame) {
  const Key key{frame.code & offsets_.code_mask(), frame.firstlineno, frame.names};
  if (const auto it = index_.find(key); it != index_.end()) {
    order_.splice(order_.begin(), order_, it->second);
    return &it->second->code;
  }
  auto code = read(key);
  if (!code) return nullptr;  // not kept: the address may hold a code object later
  bytes_ += weight(*code);
  order_.push_front({key, std::move(*code)});
  index_.emplace(key, order_.begin());
  evict();
  return &order_.front().code;
}

std::unique_ptr<Code> CodeCache::read(const Key& captured) {
  std::array<uint8_t, 512> object;
  const auto size = static_cast<size_t>(offsets_.code.size);
  if (captured.address % 8 != 0 || size > object.size() ||
      !memory_.read(captured.address, object.data(), size)) {
    return nullptr;
  }
  if (code_type_ && load<uint64_t>(object.data() + offsets_.ob_type) != code_type_) return nullptr;
  const bool counts = offsets_.ob_type == 8;  // without a GIL the counts are elsewhere
  if (counts && is_freed(object.data())) return nullptr;
  const auto found_line = load<int32_t>(object.data() + offsets_.code.firstlineno);
  if (captured.first_line && static_cast<uint32_t>(found_line) != captured.first_line) return nullptr;
  const auto names = load<std::array<uint64_t, 3>>(object.data() + offsets_.code.filename);
  if (captured.names && lt_py_names(names[0], names[1], names[2]) != captured.names) return nullptr;

  const auto name = read_string(memory_, offsets_, load<uint64_t>(object.data() + offsets_.code.name));
  const auto file = read_string(memory_, offsets_, load<uint64_t>(object.data() + offsets_.code.filename));
  if (!name && !file) return nullptr;

  auto code = std::make_unique<Code>();
  code->function = name && !name->empty() ? *name : "?";
  code->source = source(file.value_or("?"));
  code->first_line = found_line;
  code->flags = load<uint32_t>(object.data() + offsets_.code.flags);
  code->bytecode = 2 * load<uint64_t>(object.data() + offsets_.bytes.size);  // also a count of items
  code->lines = read_bytes(load<uint64_t>(object.data() + offsets_.code.lines));
  // It may have been freed while it was read, and what it refers to with it.
  const auto still = memory_.get<uint64_t>(captured.address);
  if (counts && (!still || is_freed(reinterpret_cast<const uint8_t*>(&*still)))) return nullptr;
  return code;
}

std::optional<std::vector<uint8_t>> CodeCache::read_bytes(uint64_t address) const {
  std::array<uint8_t, 1024> start;  // holds most line tables whole
  const auto data = static_cast<size_t>(offsets_.bytes.data);
  const size_t have = memory_.read_some(address, start.data(), start.size());
  if (address % 8 != 0 || have < data) return std::nullopt;
  const auto size = load<uint64_t>(start.data() + offsets_.bytes.size);
  if (size > kMaxLineTable) return std::nullopt;
  if (data + size <= have) return std::vector<uint8_t>(start.data() + data, start.data() + data + size);
  std::vector<uint8_t> bytes(size);
  for (size_t done = 0; done < size; done += kReadAtOnce) {
    const size_t piece = std::min(size - done, kReadAtOnce);
    if (!memory_.read(address + data + done, bytes.data() + done, piece)) return std::nullopt;
  }
  return bytes;
}

std::shared_ptr<const SourceFile> CodeCache::source(const std::string& filename) {
  auto& known = sources_[filename];
  auto source = known.lock();
  if (!source) {
    source = std::make_shared<const SourceFile>(classify_source(filename));
    known = source;
  }
  if (sources_.size() > kMaxSources) {
    std::erase_if(sources_, [](const auto& entry) { return entry.second.expired(); });
    if (sources_.size() > kMaxSources) sources_.clear();
  }
  return source;
}

void CodeCache::evict() {
  // The newest entry stays, however large: the caller is about to use it.
  while (order_.size() > kMaxEntries || (bytes_ > kMaxBytes && order_.size() > 1)) {
    bytes_ -= weight(order_.back().code);
    index_.erase(order_.back().key);
    order_.pop_back();
  }
}

}  // namespace looptrace::cpython
