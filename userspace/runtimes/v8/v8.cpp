// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/v8.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "runtimes/v8/bytecodes.h"
#include "runtimes/v8/compiled_frames.h"
#include "runtimes/v8/function_cache.h"
#include "runtimes/v8/handlers.h"
#include "runtimes/v8/heap.h"
#include "runtimes/v8/installation.h"
#include "runtimes/v8/recent_names.h"

namespace looptrace {
namespace v8 {
namespace {

// The collector's entries, and its work that is done in steps between.
constexpr std::array<std::string_view, 10> kCollectorFunctions = {
    "v8::internal::Heap::CollectGarbage",
    "v8::internal::Heap::PerformGarbageCollection",
    "v8::internal::Heap::Scavenge",
    "v8::internal::Heap::MarkCompact",
    "v8::internal::MarkCompactCollector::",
    "v8::internal::ScavengerCollector::",
    "v8::internal::MinorMarkSweepCollector::",
    "v8::internal::IncrementalMarking::",
    "v8::internal::Sweeper::",
    "v8::internal::CppHeap::CollectGarbage"};

class NodeJs final : public Runtime {
 public:
  NodeJs(pid_t pid, Installation installation)
      : node_(std::move(installation)),
        heap_(pid, node_.layout),
        functions_(heap_),
        sizes_(BytecodeSizes::of(*node_.object)),
        compiled_(heap_, functions_, sizes_) {}

  std::string name() const override { return "node " + node_.version; }
  void configure(lt_process& process) const override;
  bool is_runtime_code(const Frame& native) const override { return native.module == node_.module; }
  bool is_gc(const Frame& native) const override;
  // spawnSync() and execSync(): a loop over the child's pipes and its end.
  bool is_child_wait(const Frame& native) const override {
    return native.module == node_.module && native.function.starts_with("node::SyncProcessRunner::");
  }
  std::vector<NamedFrame> name_frames(const StackSlots& slots) override;
  std::optional<lt_v8_frame> read_slots(const UnwoundStack::Pointers& pointers) const override;

 private:
  void name_frame(const StackSlots& slots, const lt_v8_frame& frame, std::vector<NamedFrame>& into);
  SharedFrame name_running(const StackSlots& slots, const lt_v8_frame& frame, Function& function, int length);

  const Installation node_;
  Heap heap_;
  FunctionCache functions_;
  Handlers handlers_;
  const BytecodeSizes sizes_;
  CompiledFrames compiled_;
  RecentNames recent_;
};

void NodeJs::configure(lt_process& process) const {
  process.v8 = {.function_shared = node_.layout.function.shared, .shared_scope = node_.layout.shared.scope};
}

bool NodeJs::is_gc(const Frame& native) const {
  if (native.module != node_.module) return false;
  return std::any_of(kCollectorFunctions.begin(), kCollectorFunctions.end(),
                     [&](std::string_view prefix) { return native.function.starts_with(prefix); });
}

// An interpreted frame that was interrupted: its slot holds the offset of an earlier bytecode, one that made
// a call. The handler that runs tells which bytecodes it can be at; where these are on several lines, r9 may
// tell.
SharedFrame NodeJs::name_running(const StackSlots& slots, const lt_v8_frame& frame, Function& function,
                                 int length) {
  constexpr int kLongest = 64 << 10;  // bytes of code that are looked through
  const uint64_t pc = slots.addresses[0];
  const auto code_start = static_cast<uint64_t>(node_.layout.bytecodes.code);
  SharedFrame unknown = functions_.frame(function, frame.bytecodes, FunctionCache::kDefinition);
  handlers_.learn(heap_.memory(), slots.r15, pc);
  std::vector<uint8_t> code(static_cast<size_t>(std::min(length, kLongest)));
  if (!sizes_.known() || length > kLongest ||
      !heap_.memory().read(frame.bytecodes - 1 + code_start, code.data(), code.size())) {
    return unknown;
  }
  const uint64_t in_register = slots.r9 - (code_start - 1);
  SharedFrame found;
  bool ambiguous = false;
  sizes_.walk(code, [&](int offset, uint8_t opcode) {
    if (!handlers_.runs(opcode, pc)) return true;
    const SharedFrame candidate = functions_.frame(function, frame.bytecodes, offset);
    if (static_cast<uint64_t>(offset) == in_register) {
      found = candidate;
      ambiguous = false;
      return false;
    }
    if (!found) found = candidate;
    if (candidate->line != found->line || candidate->at_definition) ambiguous = true;
    return true;
  });
  return found && !ambiguous ? found : unknown;
}

void NodeJs::name_frame(const StackSlots& slots, const lt_v8_frame& frame, std::vector<NamedFrame>& into) {
  if (frame.user >= slots.addresses.size()) return;
  const Layout& layout = node_.layout;
  const bool running = frame.user == 0 && slots.interrupted;
  std::array<uint64_t, 2> head;  // map, length
  const bool interpreted = heap_.read(frame.bytecodes, layout.type.bytecodes, head.data(), sizeof head) &&
                           is_smi(head[1]) && is_smi(frame.offset);
  if (!interpreted) {
    for (SharedFrame& name : compiled_.name(frame, slots.addresses[frame.user], !running))
      into.push_back({frame.user, std::move(name)});
    return;
  }
  Function* function = functions_.find(frame);
  if (!function) return;
  const int length = to_int(head[1]);
  // Counted from the tagged pointer.
  const int64_t at = int64_t{to_int(frame.offset)} - (layout.bytecodes.code - 1);
  const int offset = at >= 0 && at < length ? static_cast<int>(at) : FunctionCache::kDefinition;
  into.push_back({frame.user, running ? name_running(slots, frame, *function, length)
                                      : functions_.frame(*function, frame.bytecodes, offset)});
}

std::vector<NamedFrame> NodeJs::name_frames(const StackSlots& slots) {
  const auto now = RecentNames::Clock::now();
  std::vector<NamedFrame> names;
  for (const lt_v8_frame& frame : slots.frames) {
    const size_t before = names.size();
    name_frame(slots, frame, names);
    const bool calls = frame.user < slots.addresses.size() && (frame.user > 0 || !slots.interrupted);
    if (!calls) continue;
    const uint64_t address = slots.addresses[frame.user];
    if (names.size() > before) {
      recent_.keep(frame, address, std::span(names).subspan(before), now);
    } else {
      for (SharedFrame& name : recent_.find(frame, address, now))
        names.push_back({frame.user, std::move(name)});
    }
  }
  return names;
}

std::optional<lt_v8_frame> NodeJs::read_slots(const UnwoundStack::Pointers& pointers) const {
  const auto& [index, bp, sp, address] = pointers;
  std::array<uint64_t, 5> slots;  // offset, bytecodes, argument count, function, context
  if (sp > bp - 16 || bp < 64 || !heap_.memory().read(bp - sizeof slots, slots.data(), sizeof slots))
    return std::nullopt;
  if (!is_object(slots[4]) || !is_object(slots[3])) return std::nullopt;
  const uint64_t shared = heap_.word(slots[3], node_.layout.function.shared);
  if (!is_object(shared)) return std::nullopt;
  lt_v8_frame frame{};
  frame.user = index;
  frame.shared = shared;
  frame.scope = heap_.word(shared, node_.layout.shared.scope);
  frame.bytecodes = sp <= bp - sizeof slots ? slots[1] : 0;
  frame.offset = slots[0];
  return frame;
}

}  // namespace
}  // namespace v8

std::unique_ptr<Runtime> detect_v8(pid_t pid, const ProcessModules& modules,
                                   std::optional<std::string>& warning) {
  auto found = v8::find_installation(pid, modules);
  if (!found) {
    warning = found.error().what;
    return nullptr;
  }
  if (!*found) return nullptr;
  return std::make_unique<v8::NodeJs>(pid, std::move(**found));
}

}  // namespace looptrace
