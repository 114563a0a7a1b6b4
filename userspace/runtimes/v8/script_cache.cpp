// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/script_cache.h"

namespace looptrace::v8 {
namespace {

constexpr size_t kMaxScripts = 2048;
constexpr size_t kMaxBytes = 8u << 20;
constexpr size_t kMaxName = 4096;

}  // namespace

std::shared_ptr<Script> ScriptCache::find(uint64_t address) {
  const Layout& layout = heap_.layout();
  std::array<uint8_t, 128> bytes;
  const auto size = static_cast<size_t>(layout.script.size);
  if (size > bytes.size() || !heap_.read(address, layout.type.script, bytes.data(), size)) return nullptr;
  const auto word = [&](int offset) { return load<uint64_t>(bytes.data(), offset); };
  const ScriptIdentity identity{word(layout.script.source), word(layout.script.name), word(layout.script.id)};

  if (const auto known = index_.find(address); known != index_.end()) {
    // A string that was moved makes a new identity: read again, it is the same script.
    if ((*known->second)->identity == identity) {
      order_.splice(order_.begin(), order_, known->second);
      return order_.front();
    }
    order_.erase(known->second);
    index_.erase(known);
  }
  auto script = std::make_shared<Script>();
  script->address = address;
  script->identity = identity;
  if (const auto name = heap_.text(identity.name, kMaxName)) script->name = classify_script(*name);
  const uint64_t line = word(layout.script.line_offset), column = word(layout.script.column_offset);
  if (is_smi(line)) script->line_offset = to_int(line);
  if (is_smi(column)) script->column_offset = to_int(column);
  order_.push_front(script);
  index_.emplace(address, order_.begin());
  evict();
  return script;
}

void ScriptCache::read_text(Script& script) {
  script.lines = read_line_ends(heap_, heap_.word(script.address, heap_.layout().script.line_ends),
                                script.identity.source);
  if (script.name.origin == FrameOrigin::runtime) return;
  const TextEnd end = [&](size_t length) { return heap_.end_of_text(script.identity.source, length); };
  if (script.name.file.empty())
    script.name = classify_script(find_comment(end, "sourceURL"));  // of eval() and its like
  script.map = find_source_map(heap_.memory().pid(), script.name.file, end);
}

ScriptCache::Place ScriptCache::place(Script& script, int position) {
  if (!script.text_read) {
    script.text_read = true;
    read_text(script);
    evict();
  }
  Place place{script.name, 0};
  const auto found = script.lines.find(position);
  if (!found) return place;
  const int64_t line = int64_t{found->line} + script.line_offset;
  const int64_t column = found->column + (found->line == 0 ? int64_t{script.column_offset} : 0);
  if (line < 0 || line >= INT32_MAX || column < 0 || column >= INT32_MAX) return place;
  if (script.map) {
    if (const auto original = script.map->map.find(static_cast<int>(line), static_cast<int>(column))) {
      place.name = classify_script(source_path(script.map->directory, original->source));
      place.line = original->line + 1;
      return place;
    }
  }
  if (!script.name.file.empty()) place.line = static_cast<int>(line) + 1;
  return place;
}

void ScriptCache::evict() {
  size_t bytes = 0, kept = 0;
  for (auto it = order_.begin(); it != order_.end();) {
    bytes += (*it)->bytes();
    // The newest stays, however large: the caller is about to use it.
    if (++kept == 1 || (kept <= kMaxScripts && bytes <= kMaxBytes)) {
      ++it;
      continue;
    }
    index_.erase((*it)->address);
    it = order_.erase(it);
  }
}

}  // namespace looptrace::v8
