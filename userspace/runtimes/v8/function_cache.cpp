// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/function_cache.h"

#include <cstring>
#include <optional>
#include <vector>

#include "runtimes/v8/scope_info.h"
#include "runtimes/v8/source_positions.h"

namespace looptrace::v8 {
namespace {

constexpr size_t kMaxFunctions = 16384;
constexpr size_t kMaxBytes = 8u << 20;
constexpr size_t kMaxFrames = 256;  // of one function
constexpr size_t kMaxTable = 1 << 20;

// The source position of a bytecode.
std::optional<int> position_in(Heap& heap, uint64_t bytecodes, int offset) {
  const Layout& layout = heap.layout();
  const auto table =
      heap.byte_array(heap.word(bytecodes, layout.bytecodes.positions), layout.type.positions, kMaxTable);
  const auto entry = find_position(table, offset, layout.positions_have_flags);
  return entry ? std::optional<int>(entry->position) : std::nullopt;
}

std::string function_name(const Heap& heap, const ScopeInfo& info) {
  for (const uint64_t name : {info.name, info.inferred}) {
    if (!name) continue;
    if (auto text = heap.text(name); text && !text->empty()) return *text;
  }
  return "(anonymous)";
}

}  // namespace

Function* FunctionCache::find(const lt_v8_frame& frame) {
  const Layout& layout = heap_.layout();
  std::array<uint8_t, 96> bytes;
  const auto size = static_cast<size_t>(layout.shared.size);
  if (size > bytes.size() || !heap_.read(frame.shared, layout.type.shared, bytes.data(), size))
    return nullptr;
  const auto word = [&](int offset) { return load<uint64_t>(bytes.data(), offset); };
  const uint64_t scope = word(layout.shared.scope), script_address = word(layout.shared.script);
  const uint64_t tail = word(layout.shared.size - 8);
  if (scope != frame.scope) return nullptr;  // moved, or gone, since the capture
  auto script = scripts_.find(script_address);
  if (!script) return nullptr;

  if (const auto known = index_.find(frame.shared); known != index_.end()) {
    const Function& f = *known->second;
    if (f.scope == scope && f.script_address == script_address && f.tail == tail && f.script == script) {
      order_.splice(order_.begin(), order_, known->second);
      return &order_.front();
    }
    bytes_ -= f.bytes();
    order_.erase(known->second);
    index_.erase(known);
  }
  const auto info = read_scope_info(heap_, scope);
  if (!info) return nullptr;
  Function function;
  function.address = frame.shared;
  function.scope = scope;
  function.script_address = script_address;
  function.tail = tail;
  function.name = function_name(heap_, *info);
  function.start = info->start;
  function.end = info->end;
  function.script = std::move(script);
  bytes_ += function.bytes();
  order_.push_front(std::move(function));
  index_.emplace(frame.shared, order_.begin());
  evict();
  return &order_.front();
}

SharedFrame FunctionCache::frame(Function& function, uint64_t bytecodes, int offset) {
  if (const auto known = function.frames.find(offset); known != function.frames.end()) return known->second;
  std::optional<int> position;
  if (offset != kDefinition) position = position_in(heap_, bytecodes, offset);
  const auto frame = frame_at(function, position.value_or(kDefinition));
  bytes_ -= function.bytes();
  if (function.frames.size() >= kMaxFrames) function.frames.clear();
  function.frames.emplace(offset, frame);
  bytes_ += function.bytes();
  return frame;
}

SharedFrame FunctionCache::frame_at(Function& function, int position) {
  // Of another function's table, or one that changed while it was read.
  const bool known_position = position >= function.start && position <= function.end;
  const int at = known_position ? position : kDefinition;
  if (const auto known = function.positions.find(at); known != function.positions.end()) return known->second;
  const auto place = scripts_.place(*function.script, known_position ? position : function.start);
  auto frame = std::make_shared<Frame>();
  frame->kind = FrameKind::javascript;
  frame->function = function.name;
  frame->file = place.name.file;
  frame->line = place.line;
  frame->at_definition = !known_position && place.line > 0;
  frame->module = place.name.module;
  frame->origin = place.name.origin;
  bytes_ -= function.bytes();
  if (function.positions.size() >= kMaxFrames) function.positions.clear();
  function.positions.emplace(at, frame);
  bytes_ += function.bytes();
  return frame;
}

void FunctionCache::evict() {
  // The newest entry stays: the caller is about to use it.
  while (order_.size() > kMaxFunctions || (bytes_ > kMaxBytes && order_.size() > 1)) {
    bytes_ -= order_.back().bytes();
    index_.erase(order_.back().address);
    order_.pop_back();
  }
}

}  // namespace looptrace::v8
