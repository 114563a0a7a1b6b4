// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/compiled_frames.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtimes/v8/source_positions.h"

namespace looptrace::v8 {
namespace {

constexpr size_t kMaxKnown = 4096;
constexpr size_t kMaxTable = 1 << 20;
constexpr int kMaxCode = 64 << 10;  // bytecodes
constexpr int kMaxInlined = 64;     // frames in one
// From where a call's instructions begin, which is what the table has, to where it returns: of V8's own
// calls, which pass little.
constexpr int64_t kShortCall = 64;
constexpr int32_t kMaxExits = 8192;
constexpr int64_t kExitSize = 4;  // Deoptimizer::kEagerDeoptExitSize and kLazyDeoptExitSize on x86-64

}  // namespace

// The table has a size for each bytecode, the bytecodes themselves tell their offsets.
std::optional<int> CompiledFrames::bytecode_offset(const CompiledCode& code, uint64_t offset, bool returns) {
  const Layout& layout = heap_.layout();
  const auto number =
      find_bytecode(heap_.byte_array(code.positions, layout.type.positions, kMaxTable), offset, returns);
  const int length = number ? heap_.length(code.made_from, layout.type.bytecodes).value_or(0) : 0;
  if (length <= 0 || length > kMaxCode) return std::nullopt;
  std::vector<uint8_t> bytes(static_cast<size_t>(length));
  if (!heap_.memory().read(code.made_from - 1 + static_cast<uint64_t>(layout.bytecodes.code), bytes.data(),
                           bytes.size()))
    return std::nullopt;
  std::optional<int> found;
  int n = 0;
  sizes_.walk(bytes, [&](int at, uint8_t) {
    if (n++ < *number) return true;
    found = at;
    return false;
  });
  return found;
}

// Code that became invalid is entered at one of its exits, not where the call was made.
std::optional<int64_t> Deoptimization::call(int64_t offset) const {
  if (offset < exits_start) return offset;
  const int64_t exit = (offset - exits_start) / kExitSize - eager;
  if ((offset - exits_start) % kExitSize != 0 || exit < 0 || exit >= static_cast<int64_t>(calls.size()))
    return std::nullopt;
  return calls[static_cast<size_t>(exit)];
}

// JavaScript's own calls all have positions, and an entry wherever that is not the one before. Others, of
// V8's own code in between, may have none.
bool Deoptimization::is_own(const PositionEntry& entry, int64_t call) const {
  if (std::find(calls.begin(), calls.end(), call) != calls.end()) return true;
  return call - entry.code <= kShortCall &&
         std::none_of(calls.begin(), calls.end(), [&](int64_t c) { return c > entry.code && c < call; });
}

std::optional<Deoptimization> CompiledFrames::deoptimization(uint64_t object) {
  const Layout& layout = heap_.layout();
  const int first = layout.deoptimization.exits + 3;
  const int length = heap_.length(object, layout.type.deoptimization).value_or(0);
  if (length < first || length > first + 3 * kMaxExits) return std::nullopt;
  std::vector<uint64_t> members(static_cast<size_t>(length));
  if (!heap_.memory().read(object - 1 + static_cast<uint64_t>(layout.array.data), members.data(),
                           members.size() * 8))
    return std::nullopt;
  const auto member = [&](int index) { return members[static_cast<size_t>(index)]; };
  Deoptimization d;
  d.literals = member(layout.deoptimization.literals);
  d.inlinings = member(layout.deoptimization.inlinings);
  d.shared = member(layout.deoptimization.shared);
  if (layout.deoptimization.wrapped && is_object(d.shared)) d.shared = heap_.word(d.shared, 8);
  d.exits_start = to_int(member(layout.deoptimization.exits));
  d.eager = to_int(member(layout.deoptimization.exits + 1));
  const int lazy = to_int(member(layout.deoptimization.exits + 2));
  if (d.eager < 0 || lazy < 0 || d.eager > kMaxExits || lazy > kMaxExits ||
      length != first + 3 * (d.eager + lazy))
    return std::nullopt;
  // Of each exit: bytecode, translation, and of a call where it would have returned.
  for (int at = first + 3 * d.eager; at < length; at += 3) d.calls.push_back(to_int(member(at + 2)));
  return d;
}

std::vector<SharedFrame> CompiledFrames::optimized(const lt_v8_frame& frame, const CompiledCode& code,
                                                   uint64_t offset) {
  const Layout& layout = heap_.layout();
  const auto data = deoptimization(code.made_from);
  if (!data || data->shared != frame.shared) return {};
  const auto table = heap_.byte_array(code.positions, layout.type.positions, kMaxTable);
  const auto call = data->call(static_cast<int64_t>(offset));
  auto entry = call ? find_position(table, *call - 1, layout.positions_have_flags) : std::nullopt;
  if (!entry || !data->is_own(*entry, *call)) return {};
  std::vector<uint8_t> inlinings;
  if (entry->inlining >= 0) inlinings = heap_.byte_array(data->inlinings, layout.type.inlinings, kMaxTable);

  std::vector<SharedFrame> names;
  while (entry->inlining >= 0) {
    struct Inlined {
      int64_t position;  // of the call, in the function that it was inlined into
      int32_t function;  // index of its SharedFunctionInfo among the literals
      int32_t unused;
    } inlined;
    const size_t at = static_cast<size_t>(entry->inlining) * sizeof inlined;
    if (at + sizeof inlined > inlinings.size() || names.size() >= kMaxInlined) return {};
    std::memcpy(&inlined, inlinings.data() + at, sizeof inlined);
    const int literals = heap_.length(data->literals, layout.type.literals).value_or(0);
    if (inlined.function < 0 || inlined.function >= literals) return {};
    lt_v8_frame inner{};
    inner.shared = heap_.word(data->literals, layout.array.data + 8 * inlined.function);
    if ((inner.shared & 3) == 3) inner.shared &= ~uint64_t{2};  // a weak reference
    inner.scope = heap_.word(inner.shared, layout.shared.scope);
    // V8's own functions that are written in JavaScript's stead have no script.
    if (Function* function = functions_.find(inner)) {
      names.push_back(functions_.frame_at(*function, entry->position));
    }
    entry = unpack_position(inlined.position);
    if (!entry) return {};
  }
  Function* function = functions_.find(frame);
  if (!function) return {};
  names.push_back(functions_.frame_at(*function, entry->position));
  return names;
}

std::vector<SharedFrame> CompiledFrames::look_up(const lt_v8_frame& frame, const CompiledCode& code,
                                                 uint64_t pc, bool returns) {
  const uint64_t offset = pc - code.start;
  if (code.made_from == frame.bytecodes) {
    const auto at = bytecode_offset(code, offset, returns);
    Function* function = at ? functions_.find(frame) : nullptr;
    if (function) return {functions_.frame(*function, frame.bytecodes, *at)};
  } else if (returns) {
    return optimized(frame, code, offset);
  }
  return {};
}

std::vector<SharedFrame> CompiledFrames::name(const lt_v8_frame& frame, uint64_t pc, bool returns) {
  Function* function = functions_.find(frame);
  if (!function) return {};
  const SharedFrame definition = functions_.frame(*function, 0, FunctionCache::kDefinition);
  const auto code = finder_.find(pc);
  if (!code) return {definition};
  const auto known = returns ? returns_.find(pc) : returns_.end();
  if (known != returns_.end() && known->second.code == *code && known->second.shared == frame.shared)
    return known->second.names;
  auto names = look_up(frame, *code, pc, returns);
  if (names.empty()) return {definition};
  if (returns) {
    if (returns_.size() >= kMaxKnown) returns_.clear();
    returns_.insert_or_assign(pc, Known{*code, frame.shared, names});
  }
  return names;
}

}  // namespace looptrace::v8
