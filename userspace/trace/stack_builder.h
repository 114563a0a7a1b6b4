// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "record/stall.h"
#include "stacks/symbolizer.h"
#include "trace/processes.h"
#include "trace/raw.h"

namespace looptrace {

/// The walk broke off in code that the process's runtime makes: it may be newer than the last look.
bool ended_in_made_code(const RawCapture& capture, const TracedProcess& process);

/// Turns captured addresses into named frames: kernel frames first, then native ones, with interpreter
/// frames in the place of the eval loop's.
class StackBuilder {
 public:
  explicit StackBuilder(Symbolizer& symbolizer) : symbolizer_(symbolizer) {}

  /// Sets frames and truncated of `stack`. `modules_stale` is set if an address lies in no known mapping, or
  /// in code that the runtime has made since.
  void build(const RawCapture& capture, TracedProcess& process, Stack& stack, bool& modules_stale,
             Symbolizer::Detail detail = Symbolizer::Detail::line);

  /// Names of the kernel functions of a capture, leaf first.
  std::vector<std::string> kernel_functions(const RawCapture& capture);

 private:
  Symbolizer& symbolizer_;
};

}  // namespace looptrace
