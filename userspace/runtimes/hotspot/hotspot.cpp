// SPDX-License-Identifier: Apache-2.0
#include "runtimes/hotspot/hotspot.h"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "runtimes/hotspot/code_cache.h"
#include "runtimes/hotspot/debug_info.h"
#include "runtimes/hotspot/method_names.h"
#include "runtimes/hotspot/vm_structs.h"
#include "stacks/elf_object.h"

namespace looptrace {
namespace hotspot {
namespace {

constexpr int kFirst = 8, kLast = 27;

struct Version {
  int major = 0;
  std::string text;
};

Version version_of(const RemoteMemory& memory, const VmStructs& structs) {
  // Up to 8, releases are those of HotSpot itself: "25.504-b01".
  if (const uint64_t current = structs.address("JDK_Version", "_current")) {
    const int major = memory.get<uint8_t>(current).value_or(0);
    return {major, std::to_string(major)};
  }
  // "17.0.15+6-Debian-1deb12u1"
  Version version;
  if (const uint64_t release = structs.address("Abstract_VM_Version", "_s_vm_release"))
    version.text = read_text(memory, memory.pointer(release));
  version.text.resize(std::min(version.text.find('-'), version.text.size()));
  version.major = std::atoi(version.text.c_str());
  return version;
}

class Hotspot final : public Runtime {
 public:
  Hotspot(pid_t pid, Version version, CodeCache code, MethodNames names, std::optional<DebugInfo> debug)
      : memory_(pid),
        version_(std::move(version)),
        code_(std::move(code)),
        names_(names),
        debug_(std::move(debug)) {}

  std::string name() const override { return "openjdk " + version_.text; }
  void configure(lt_process&) const override {}
  bool is_gc(const Frame&) const override { return false; }  // it collects on threads of its own

  // Thread.sleep() waits on a condition variable.
  bool is_sleep(const Frame& native) const override {
    return native.module == "libjvm.so" &&
           (native.function == "JVM_Sleep" || native.function.starts_with("JVM_SleepNanos"));
  }

  bool cover(ProcessModules& modules) override {
    code_.update(memory_);
    modules.cover(code_.low(), code_.high(), code_.rows());
    return true;
  }

  bool left_code_out() const override { return code_.left_out() > 0; }

  std::vector<NamedFrame> name_frames(const StackSlots& slots) override {
    std::vector<NamedFrame> named;
    for (const lt_v8_frame& slot : slots.frames) {
      // While it runs, its place is in a register, and the slot tells an earlier one.
      const bool running = slots.interrupted && slot.user == 0;
      const uint64_t bytecode = version_.major <= 8 ? slot.offset : slot.bytecodes;
      const auto frame = names_.frame(memory_, slot.shared, {running ? 0 : bytecode, std::nullopt});
      if (frame) named.push_back({slot.user, std::make_shared<const Frame>(*frame)});
    }
    return named;
  }

  std::optional<lt_v8_frame> read_slots(const UnwoundStack::Pointers& pointers) const override {
    const CodeBlob* blob = code_.find(pointers.address);
    if (!blob || blob->name != "Interpreter" || pointers.sp > pointers.bp - 64) return std::nullopt;
    lt_v8_frame frame{};
    frame.user = pointers.frame;
    frame.shared = memory_.pointer(pointers.bp - 24);
    frame.bytecodes = memory_.pointer(pointers.bp - 64);
    frame.offset = memory_.pointer(pointers.bp - 56);
    return frame;
  }

  std::vector<Frame> name_code(uint64_t address, bool returns) override {
    const CodeBlob* blob = code_.find(returns ? address - 1 : address);
    if (!blob || !code_.still_holds(memory_, *blob)) return {};
    if (!blob->method) {
      Frame frame;
      frame.kind = FrameKind::jit;
      frame.origin = FrameOrigin::runtime;
      frame.function = blob->name;
      return {frame};
    }
    std::vector<Place> places;
    if (debug_ && returns) places = debug_->call(memory_, *blob, address);
    std::vector<Frame> frames;
    for (const Place& place : places) {
      auto frame = names_.frame(memory_, place.method, {0, place.bytecode});
      if (!frame) break;
      frames.push_back(std::move(*frame));
    }
    if (!places.empty() && frames.size() == places.size()) return frames;
    frames.clear();
    if (auto frame = names_.frame(memory_, blob->method, {})) frames.push_back(std::move(*frame));
    return frames;
  }

 private:
  RemoteMemory memory_;
  Version version_;
  CodeCache code_;
  MethodNames names_;
  std::optional<DebugInfo> debug_;
};

}  // namespace
}  // namespace hotspot

std::unique_ptr<Runtime> detect_hotspot(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning) {
  using namespace hotspot;
  for (const Module& module : modules.all()) {
    if (!module.object || module.object->name() != "libjvm.so" ||
        !module.object->find_by_name("gHotSpotVMStructs"))
      continue;
    const RemoteMemory memory(pid);
    std::vector<std::string_view> types = CodeCache::types();
    for (const auto& more : {MethodNames::types(), DebugInfo::types(),
                             std::vector<std::string_view>{"Abstract_VM_Version", "JDK_Version"}})
      types.insert(types.end(), more.begin(), more.end());
    const auto structs = VmStructs::read(memory, *module.object, module.bias, types);
    if (!structs) continue;
    Version version = version_of(memory, *structs);
    if (version.major < kFirst || version.major > kLast) {
      warning = "OpenJDK " + version.text + " is not known (8 to 27 are); stacks are cut at Java methods";
      return nullptr;
    }
    auto code = CodeCache::of(*structs);
    auto names = MethodNames::of(*structs, version.major);
    if (!code || !names) {
      warning = "OpenJDK " + version.text +
                ": its code cache is laid out in a way that is not known; stacks are cut at Java methods";
      return nullptr;
    }
    auto debug = DebugInfo::of(*structs, version.major);
    return std::make_unique<Hotspot>(pid, std::move(version), std::move(*code), *names, std::move(debug));
  }
  return nullptr;
}

}  // namespace looptrace
