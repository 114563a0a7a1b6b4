// SPDX-License-Identifier: Apache-2.0
#include "runtimes/coreclr/coreclr.h"

#include <cctype>
#include <filesystem>
#include <string>
#include <utility>

#include "stacks/elf_object.h"

namespace looptrace {
namespace {

class CoreClr final : public Runtime {
 public:
  explicit CoreClr(std::string version) : version_(std::move(version)) {}

  std::string name() const override { return version_.empty() ? "dotnet" : "dotnet " + version_; }
  void configure(lt_process&) const override {}

  bool is_gc(const Frame& frame) const override {
    return is_own(frame) && frame.function.find("::GCHeap::GarbageCollect") != std::string::npos;
  }

  bool is_sleep(const Frame& frame) const override {
    if (frame.kind == FrameKind::jit)
      return frame.function == "System.Threading.Thread.Sleep" ||
             frame.function == "System.Threading.Thread.SleepInternal";
    return is_own(frame) &&
           (frame.function.starts_with("ThreadNative::Sleep") || frame.function == "ThreadNative_Sleep");
  }

 private:
  // From .NET 7 on the collector can be a library of its own.
  static bool is_own(const Frame& frame) {
    return frame.module == "libcoreclr.so" || frame.module == "libclrgc.so";
  }

  std::string version_;
};

}  // namespace

std::unique_ptr<Runtime> detect_coreclr(const ProcessModules& modules) {
  for (const Module& module : modules.all()) {
    if (!module.object || module.object->name() != "libcoreclr.so") continue;
    // .../shared/Microsoft.NETCore.App/8.0.11/libcoreclr.so; beside the program where it is self-contained.
    std::string version = std::filesystem::path(module.path).parent_path().filename();
    if (version.empty() || !std::isdigit(static_cast<unsigned char>(version[0]))) version.clear();
    return std::make_unique<CoreClr>(std::move(version));
  }
  return nullptr;
}

}  // namespace looptrace
