// SPDX-License-Identifier: Apache-2.0
#include "record/frame.h"
#include "record/stall.h"

namespace looptrace {

const char* frame_kind_name(FrameKind kind) {
  switch (kind) {
    case FrameKind::native:
      return "native";
    case FrameKind::inlined:
      return "inlined";
    case FrameKind::kernel:
      return "kernel";
    case FrameKind::python:
      return "python";
    case FrameKind::javascript:
      return "javascript";
    case FrameKind::jit:
      return "jit";
  }
  return "native";
}

const char* cause_name(Cause cause) {
  switch (cause) {
    case Cause::cpu:
      return "cpu";
    case Cause::gc:
      return "gc";
    case Cause::network:
      return "network";
    case Cause::file:
      return "file";
    case Cause::pipe:
      return "pipe";
    case Cause::lock:
      return "lock";
    case Cause::gil:
      return "gil";
    case Cause::sleep:
      return "sleep";
    case Cause::child:
      return "child";
    case Cause::page_fault:
      return "page_fault";
    case Cause::runqueue:
      return "runqueue";
    case Cause::throttled:
      return "throttled";
    case Cause::stopped:
      return "stopped";
    case Cause::other:
      return "other";
  }
  return "other";
}

const char* confidence_name(Confidence confidence) {
  switch (confidence) {
    case Confidence::certain:
      return "certain";
    case Confidence::inferred:
      return "inferred";
    case Confidence::unknown:
      return "unknown";
  }
  return "unknown";
}

const char* stack_state_name(StackState state) {
  switch (state) {
    case StackState::on_cpu:
      return "on_cpu";
    case StackState::blocked:
      return "blocked";
    case StackState::runqueue:
      return "runqueue";
  }
  return "on_cpu";
}

}  // namespace looptrace
