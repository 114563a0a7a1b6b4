// SPDX-License-Identifier: Apache-2.0
#include "stacks/jit_name.h"

#include <charconv>

#include "base/files.h"
#include "stacks/frame_origin.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace {

// Takes ":123" off the end of `text`.
bool take_number(std::string_view& text, int& number) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || number < 0) return false;
  text = text.substr(0, colon);
  return true;
}

bool parse_v8(std::string_view name, Frame& frame) {
  bool script = false;
  for (const std::string_view prefix : {"JS:", "LazyCompile:", "Function:", "Script:", "Eval:"}) {
    if (!name.starts_with(prefix)) continue;
    name.remove_prefix(prefix.size());
    script = true;
    break;
  }
  if (!script) return false;
  // The tier: interpreted ~, baseline ^, optimized * or +.
  if (!name.empty() && std::string_view("~^*+").find(name[0]) != std::string_view::npos)
    name.remove_prefix(1);
  const size_t space = name.find(' ');
  std::string_view place = space == std::string_view::npos ? std::string_view() : name.substr(space + 1);
  int line = 0, column = 0;
  if (take_number(place, column) && take_number(place, line)) {
    frame.line = line;
    frame.file = to_utf8(place);
    name = name.substr(0, space);
  }
  frame.function = name.empty() ? "(anonymous)" : to_utf8(name);
  return true;
}

}  // namespace

void parse_jit_name(std::string_view name, Frame& frame) {
  frame.origin = FrameOrigin::application;
  if (!parse_v8(name, frame)) {
    if (name.starts_with("py::")) {
      const std::string_view rest = name.substr(4);
      const size_t colon = rest.find(':');
      frame.function = to_utf8(rest.substr(0, colon));
      if (colon != std::string_view::npos) frame.file = to_utf8(rest.substr(colon + 1));
    } else {
      frame.function = to_utf8(demangle(name));
      for (const std::string_view own : {"Builtin:", "BytecodeHandler:", "Stub:", "RegExp:"})
        if (name.starts_with(own)) frame.origin = FrameOrigin::runtime;
    }
  }
  frame.origin = source_origin(frame.file, frame.origin);
}

}  // namespace looptrace
