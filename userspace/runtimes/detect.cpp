// SPDX-License-Identifier: Apache-2.0
#include "runtimes/coreclr/coreclr.h"
#include "runtimes/cpython/cpython.h"
#include "runtimes/hotspot/hotspot.h"
#include "runtimes/runtime.h"
#include "runtimes/v8/v8.h"

namespace looptrace {

std::unique_ptr<Runtime> detect_runtime(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning) {
  if (auto cpython = detect_cpython(pid, modules, warning); cpython || warning) return cpython;
  if (auto v8 = detect_v8(pid, modules, warning); v8 || warning) return v8;
  if (auto hotspot = detect_hotspot(pid, modules, warning); hotspot || warning) return hotspot;
  return detect_coreclr(modules);
}

}  // namespace looptrace
