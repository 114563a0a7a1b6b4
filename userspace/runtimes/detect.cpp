// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/cpython.h"
#include "runtimes/runtime.h"

namespace looptrace {

std::unique_ptr<Runtime> detect_runtime(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning) {
  return detect_cpython(pid, modules, warning);
}

}  // namespace looptrace
