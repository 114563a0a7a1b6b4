// SPDX-License-Identifier: Apache-2.0
#include "stacks/symbolizer.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/files.h"
#include "looptrace.h"
#include "stacks/elf_object.h"
#include "stacks/frame_origin.h"
#include "stacks/jit_dump.h"
#include "stacks/jit_name.h"
#include "stacks/kernel_symbols.h"
#include "stacks/perf_map.h"

namespace looptrace {
namespace {

using Clock = std::chrono::steady_clock;

// How old a perf map may be before it is looked at again: JIT compilers append all the time.
constexpr auto kPerfMapAge = std::chrono::milliseconds(200);

struct Key {
  uint64_t object;  // serial number
  uint64_t address;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    return static_cast<size_t>((key.address ^ key.object << 48) * 0x9e3779b97f4a7c15ull >> 7);
  }
};

// What depends on the file and the address alone.
struct Resolved {
  std::vector<ElfObject::Position> positions;  // innermost first, the real function last; never empty
  bool covered = false;                        // by an unwind table
};

// The least recently used half goes when full: two generations, a hit moves an entry to the younger.
class ResolvedCache {
 public:
  explicit ResolvedCache(size_t budget) : budget_(budget) {}

  const Resolved* find(const Key& key) {
    if (const auto it = young_.find(key); it != young_.end()) return &it->second;
    const auto it = old_.find(key);
    if (it == old_.end()) return nullptr;
    Resolved found = std::move(it->second);
    old_.erase(it);
    return &insert(key, std::move(found));
  }

  const Resolved& insert(const Key& key, Resolved resolved) {
    if (young_bytes_ > budget_ / 2) {
      old_ = std::exchange(young_, {});
      old_bytes_ = std::exchange(young_bytes_, 0);
    }
    young_bytes_ += cost(resolved);
    return young_.insert_or_assign(key, std::move(resolved)).first->second;
  }

  size_t bytes() const { return young_bytes_ + old_bytes_; }

  void clear() {
    young_.clear();
    old_.clear();
    young_bytes_ = old_bytes_ = 0;
  }

 private:
  static size_t cost(const Resolved& resolved) {
    size_t sum =
        sizeof(Key) + sizeof(Resolved) + 32 + resolved.positions.capacity() * sizeof(ElfObject::Position);
    for (const auto& p : resolved.positions) sum += p.function.capacity() + p.file.capacity();
    return sum;
  }

  using Map = std::unordered_map<Key, Resolved, KeyHash>;
  size_t budget_;
  Map young_, old_;
  size_t young_bytes_ = 0, old_bytes_ = 0;
};

std::string_view base_name(std::string_view path) {
  constexpr std::string_view kDeleted = " (deleted)";
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  return path.substr(path.rfind('/') + 1);
}

// A mapping may have a path that is no file of code: shared memory, in which JIT compilers keep theirs.
bool is_of_file(std::string_view path) {
  if (!path.starts_with('/')) return path.starts_with('[');
  for (const std::string_view memory : {"/dev/zero", "/memfd:", "/SYSV", "/anon_hugepage", "/dev/shm/"}) {
    if (path.starts_with(memory)) return false;
  }
  return true;
}

}  // namespace

struct Symbolizer::Impl {
  struct KnownObject {
    std::weak_ptr<ElfObject> object;
    uint64_t serial = 0;
  };
  struct ProcessMap {
    PerfMap map;
    std::optional<JitDump> dump;
    Clock::time_point read{};
    uint64_t used = 0;
    size_t bytes() const { return map.bytes() + (dump ? dump->bytes() : 0); }
  };

  Options options;
  ResolvedCache cache;
  Resolved last_name;  // without its line: not for the cache
  std::unordered_map<const ElfObject*, KnownObject> objects;
  uint64_t serials = 0;
  std::vector<std::weak_ptr<ElfObject>> with_dwarf;  // least recently used first
  std::unordered_map<pid_t, ProcessMap> perf_maps;
  uint64_t tick = 0;
  std::optional<KernelSymbols> kernel;
  std::deque<std::weak_ptr<ElfObject>> wanted;

  explicit Impl(Options o) : options(o), cache(o.cache_bytes) {}

  uint64_t serial_of(const std::shared_ptr<ElfObject>& object);
  const Resolved& resolve(const std::shared_ptr<ElfObject>& object, uint64_t address, Detail detail);
  bool is_wanted(const std::shared_ptr<ElfObject>& object) const;
  void want(const std::shared_ptr<ElfObject>& object);
  void keep_dwarf_within_budget(const std::shared_ptr<ElfObject>& used);
  ProcessMap& perf_map(pid_t pid, const ProcessModules& modules);
  bool jit(pid_t pid, const ProcessModules& modules, uint64_t address, Frame& frame);
  const KernelSymbols& kernel_symbols() {
    if (!kernel) kernel = KernelSymbols::load();
    return *kernel;
  }
};

// Objects come and go and their addresses are used again; a serial number is not.
uint64_t Symbolizer::Impl::serial_of(const std::shared_ptr<ElfObject>& object) {
  KnownObject& known = objects[object.get()];
  if (known.serial == 0 || known.object.lock() != object) {
    known = {object, ++serials};
    constexpr size_t kSweep = 256;
    if (objects.size() % kSweep == 0)
      std::erase_if(objects, [](const auto& entry) { return entry.second.object.expired(); });
  }
  return objects[object.get()].serial;
}

void Symbolizer::Impl::keep_dwarf_within_budget(const std::shared_ptr<ElfObject>& used) {
  std::erase_if(with_dwarf, [&](const auto& weak) {
    const auto object = weak.lock();
    return !object || object == used || object->dwarf_bytes() == 0;
  });
  if (used->dwarf_bytes()) with_dwarf.push_back(used);
  size_t sum = 0;
  for (auto it = with_dwarf.rbegin(); it != with_dwarf.rend(); ++it) {
    const auto object = it->lock();
    // The one in use stays even if it is too large alone: reopening it for each address would be worse.
    const auto too_much = [&] { return object != used && sum + object->dwarf_bytes() > options.dwarf_bytes; };
    if (too_much()) object->drop_units();
    if (too_much()) object->drop_dwarf();
    sum += object->dwarf_bytes();
  }
}

bool Symbolizer::Impl::is_wanted(const std::shared_ptr<ElfObject>& object) const {
  return std::any_of(wanted.begin(), wanted.end(), [&](const auto& weak) { return weak.lock() == object; });
}

void Symbolizer::Impl::want(const std::shared_ptr<ElfObject>& object) {
  if (!is_wanted(object)) wanted.push_back(object);
}

const Resolved& Symbolizer::Impl::resolve(const std::shared_ptr<ElfObject>& object, uint64_t address,
                                          Detail detail) {
  const Key key{serial_of(object), address};
  if (const Resolved* known = cache.find(key)) return *known;
  Resolved resolved;
  resolved.covered = object->covers(address);
  bool lines = options.source_lines && detail != Detail::name;
  if (lines && detail == Detail::line_if_read && !object->lines_are_read()) {
    lines = !is_wanted(object) && object->read_lines_on();  // all of a small file is read by one call
    if (!lines) want(object);
  }
  if (lines) {
    resolved.positions = object->positions(address);
    keep_dwarf_within_budget(object);
  }
  if (resolved.positions.empty()) resolved.positions.emplace_back();
  ElfObject::Position& outermost = resolved.positions.back();
  if (outermost.function.empty())
    if (const auto symbol = object->find_symbol(address)) outermost.function = demangle(symbol->name);
  for (ElfObject::Position& position : resolved.positions) {
    position.function = to_utf8(position.function);
    position.file = to_utf8(position.file);
  }
  if (options.source_lines && !lines) return last_name = std::move(resolved);
  return cache.insert(key, std::move(resolved));
}

Symbolizer::Impl::ProcessMap& Symbolizer::Impl::perf_map(pid_t pid, const ProcessModules& modules) {
  auto it = perf_maps.find(pid);
  if (it == perf_maps.end())
    it = perf_maps.emplace(pid, ProcessMap{PerfMap(PerfMap::source_of(pid)), {}}).first;
  ProcessMap& process = it->second;
  process.used = ++tick;
  const Clock::time_point now = Clock::now();
  if (process.read != Clock::time_point() && now - process.read < kPerfMapAge) return process;
  process.map.refresh();
  const auto source = JitDump::source_of(pid, modules);
  if (!source) {
    process.dump.reset();
  } else {
    if (!process.dump || process.dump->source().path != source->path) process.dump.emplace(*source);
    process.dump->refresh();
  }
  process.read = now;
  size_t sum = 0;
  for (const auto& [id, other] : perf_maps) sum += other.bytes();
  while (sum > options.perf_map_bytes && perf_maps.size() > 1) {
    const auto oldest =
        std::min_element(perf_maps.begin(), perf_maps.end(),
                         [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    sum -= oldest->second.bytes();
    perf_maps.erase(oldest);
  }
  return perf_maps.at(pid);
}

bool Symbolizer::Impl::jit(pid_t pid, const ProcessModules& modules, uint64_t address, Frame& frame) {
  const ProcessMap& process = perf_map(pid, modules);
  if (process.dump) {
    if (const auto entry = process.dump->find(address)) {
      frame.kind = FrameKind::jit;
      parse_jit_name(entry->name, frame);
      if (!entry->file.empty() && entry->line > 0) {  // of this address, not of the definition
        frame.file = to_utf8(entry->file);
        frame.line = entry->line;
        frame.at_definition = false;
      }
      return true;
    }
  }
  const auto entry = process.map.find(address);
  if (!entry) return false;
  frame.kind = FrameKind::jit;
  parse_jit_name(entry->name, frame);
  return true;
}

Symbolizer::Symbolizer(Options options) : impl_(std::make_unique<Impl>(options)) {}
Symbolizer::~Symbolizer() = default;

void Symbolizer::want(const std::shared_ptr<ElfObject>& object) { impl_->want(object); }

void Symbolizer::read_on() {
  auto& wanted = impl_->wanted;
  if (wanted.empty()) return;
  const auto object = wanted.front().lock();
  const bool done = !object || object->read_on(impl_->options.source_lines);
  if (object) impl_->keep_dwarf_within_budget(object);
  if (done) wanted.pop_front();
}

bool Symbolizer::has_more_to_read() const { return !impl_->wanted.empty(); }

void Symbolizer::user(pid_t pid, const ProcessModules& modules, uint64_t address, bool is_return_address,
                      std::vector<Frame>& out, Detail detail) {
  const uint64_t at = address - (is_return_address ? 1 : 0);
  const Module* module = modules.find(at);
  if (!module || !module->object) {
    const bool of_file = module && is_of_file(module->path);
    Frame frame;
    frame.offset = of_file ? at - module->start : at;
    if (!impl_->jit(pid, modules, at, frame)) {
      frame.guessed = true;
      if (of_file) {
        frame.module = to_utf8(base_name(module->path));
        frame.origin = module_origin(module->path, false);
      }
    }
    out.push_back(std::move(frame));
    return;
  }

  const ElfObject& object = *module->object;
  const uint64_t file_address = at - module->bias;
  const Resolved& resolved = impl_->resolve(module->object, file_address, detail);
  const FrameOrigin origin = module_origin(module->path, object.is_main_program());
  for (size_t i = 0; i < resolved.positions.size(); ++i) {
    const ElfObject::Position& position = resolved.positions[i];
    Frame frame;
    frame.kind = i + 1 < resolved.positions.size() ? FrameKind::inlined : FrameKind::native;
    frame.function = position.function;
    frame.file = position.file;
    frame.line = position.line;
    frame.module = to_utf8(base_name(module->path));
    frame.offset = file_address;
    frame.build_id = object.build_id();
    frame.origin = source_origin(position.file, origin);
    frame.guessed = !resolved.covered && position.function.empty();
    out.push_back(std::move(frame));
  }
}

void Symbolizer::kernel(uint64_t address, std::vector<Frame>& out) {
  Frame frame;
  frame.kind = FrameKind::kernel;
  frame.origin = FrameOrigin::runtime;
  frame.offset = address;
  if (const auto found = impl_->kernel_symbols().find(address)) {
    frame.function = found->name;
    frame.module = found->module;
    frame.offset = found->offset;
  }
  out.push_back(std::move(frame));
}

bool Symbolizer::kernel_symbols_hidden() { return impl_->kernel_symbols().hidden(); }

void Symbolizer::set_source_lines(bool on) {
  if (on && !impl_->options.source_lines) impl_->cache.clear();  // of what was resolved without lines
  impl_->options.source_lines = on;
}

void Symbolizer::drop_cache() {
  impl_->wanted.clear();
  impl_->cache.clear();
  impl_->perf_maps.clear();
  for (const auto& weak : impl_->with_dwarf) {
    if (const auto object = weak.lock()) object->drop_dwarf();
  }
}

size_t Symbolizer::bytes() const {
  size_t sum = sizeof *impl_ + impl_->cache.bytes() + impl_->objects.size() * 64;
  for (const auto& [pid, process] : impl_->perf_maps) sum += process.bytes();
  if (impl_->kernel) sum += impl_->kernel->bytes();
  return sum;
}

void Symbolizer::forget(pid_t pid) { impl_->perf_maps.erase(pid); }

}  // namespace looptrace
