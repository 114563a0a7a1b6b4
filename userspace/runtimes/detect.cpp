// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/cpython.h"
#include "runtimes/hotspot/hotspot.h"
#include "runtimes/runtime.h"
#include "runtimes/v8/v8.h"

namespace looptrace {

std::unique_ptr<Runtime> detect_runtime(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning) {
  if (auto cpython = detect_cpython(pid, modules, warning); cpython || warning) return cpython;
  if (auto v8 = detect_v8(pid, modules, warning); v8 || warning) return v8;
  return detect_hotspot(pid, modules, warning);
}

}  // namespace looptrace
