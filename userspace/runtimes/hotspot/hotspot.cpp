// SPDX-License-Identifier: Apache-2.0
#include "runtimes/hotspot/hotspot.h"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "runtimes/hotspot/code_cache.h"
#include "runtimes/hotspot/method_names.h"
#include "runtimes/hotspot/vm_structs.h"
#include "stacks/elf_object.h"

namespace looptrace {
namespace hotspot {
namespace {

class Hotspot final : public Runtime {
 public:
  Hotspot(pid_t pid, std::string version, CodeCache code, MethodNames names)
      : memory_(pid), version_(std::move(version)), code_(std::move(code)), names_(std::move(names)) {}

  std::string name() const override { return version_.empty() ? "openjdk" : "openjdk " + version_; }
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
      const auto frame = names_.frame(memory_, slot.shared, running ? 0 : slot.bytecodes);
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
    return frame;
  }

  std::optional<Frame> name_code(uint64_t address) override {
    const CodeBlob* blob = code_.find(address);
    if (!blob || !code_.still_holds(memory_, *blob)) return std::nullopt;
    if (blob->method) return names_.frame(memory_, blob->method, 0);
    Frame frame;
    frame.kind = FrameKind::jit;
    frame.origin = FrameOrigin::runtime;
    frame.function = blob->name;
    return frame;
  }

 private:
  RemoteMemory memory_;
  std::string version_;
  CodeCache code_;
  MethodNames names_;
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
    for (const auto& more : {MethodNames::types(), std::vector<std::string_view>{"Abstract_VM_Version"}})
      types.insert(types.end(), more.begin(), more.end());
    const auto structs = VmStructs::read(memory, *module.object, module.bias, types);
    if (!structs) continue;
    // "17.0.15+6-Debian-1deb12u1"
    std::string version;
    if (const uint64_t release = structs->address("Abstract_VM_Version", "_s_vm_release"))
      version = read_text(memory, memory.pointer(release));
    version.resize(std::min(version.find('-'), version.size()));
    auto code = CodeCache::of(*structs);
    auto names = MethodNames::of(*structs, std::atoi(version.c_str()));
    if (!code || !names) {
      warning = "OpenJDK " + version +
                ": its code cache is laid out in a way that is not known; stacks are cut at "
                "compiled Java methods";
      return nullptr;
    }
    return std::make_unique<Hotspot>(pid, std::move(version), std::move(*code), std::move(*names));
  }
  return nullptr;
}

}  // namespace looptrace
