// SPDX-License-Identifier: Apache-2.0
#include "stacks/jit_name.h"

#include <algorithm>
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
  // The tier: interpreted ~, baseline ^, optimized * or +; before it "o" of code that a loop was entered by,
  // behind it
  // "'" of code for one context.
  const auto is_tier = [&](size_t at) {
    return at < name.size() && std::string_view("~^*+").find(name[at]) != std::string_view::npos;
  };
  if (is_tier(0) || (name.starts_with("o") && is_tier(1))) {
    name.remove_prefix(name[0] == 'o' ? 2 : 1);
    if (name.starts_with("'")) name.remove_prefix(1);
  }
  const size_t space = name.find(' ');
  std::string_view place = space == std::string_view::npos ? std::string_view() : name.substr(space + 1);
  int line = 0, column = 0;
  if (take_number(place, column) && take_number(place, line)) {
    frame.line = line;
    frame.at_definition = true;
    frame.file = to_utf8(place);
    name = name.substr(0, space);
  }
  frame.function = name.empty() ? "(anonymous)" : to_utf8(name);
  return true;
}

// As HotSpot writes them: "void io.netty.channel.Channel.read(int)", and "Interpreter" for what has no name;
// and as perf-map-agent does: "Lio/netty/channel/Channel;::read".
bool parse_java(std::string_view name, Frame& frame) {
  for (const std::string_view own : {"Interpreter", "StubRoutines", "I2C/C2I adapters", "vtable chunks"}) {
    if (!name.starts_with(own)) continue;
    frame.function = to_utf8(name);
    frame.origin = FrameOrigin::runtime;
    return true;
  }
  if (const size_t type_end = name.find(";::"); name.starts_with("L") && type_end != std::string_view::npos) {
    std::string type(name.substr(1, type_end - 1));
    std::replace(type.begin(), type.end(), '/', '.');
    frame.origin = java_origin(type);
    frame.function = to_utf8(name);
    return true;
  }
  const size_t open = name.find('('), space = name.find(' ');
  if (!name.ends_with(")") || space >= open || name.find("::") < open || name.find(' ', space + 1) < open)
    return false;
  const std::string_view function = name.substr(space + 1, open - space - 1);
  if (function.find('.') == std::string_view::npos) return false;
  frame.origin = java_origin(function);
  frame.function = to_utf8(function);
  return true;
}

// As JavaScriptCore (Bun) writes them: "JSC-FTL: price#BkK2Tx", the function and a hash of its code, and its
// own helpers as "JSC-Thunk: CallTrampoline".
bool parse_jsc(std::string_view name, Frame& frame) {
  if (!name.starts_with("JSC-")) return false;
  const size_t colon = name.find(": "), hash = name.rfind('#');
  if (colon == std::string_view::npos) return false;
  if (hash == std::string_view::npos || hash < colon) {
    frame.function = to_utf8(name);
    frame.origin = FrameOrigin::runtime;
    return true;
  }
  const std::string_view function = name.substr(colon + 2, hash - colon - 2);
  frame.function = function.empty() ? "(anonymous)" : to_utf8(function);
  return true;
}

// As .NET writes them: "instance void [App] Shop.Orders::Reserve(int32)[Tier0]".
bool parse_dotnet(std::string_view name, Frame& frame) {
  const size_t open = name.find('['), close = name.find("] ");
  const size_t arguments = close == std::string_view::npos ? close : name.find('(', close);
  if (open > close || arguments == std::string_view::npos) return false;
  const std::string_view assembly = name.substr(open + 1, close - open - 1);
  const std::string_view method = name.substr(close + 2, arguments - close - 2);
  const size_t colons = method.rfind("::");
  if (colons == std::string_view::npos) return false;
  frame.function =
      to_utf8(std::string(method.substr(0, colons)) + "." + std::string(method.substr(colons + 2)));
  if (assembly.starts_with("System.") || assembly.starts_with("Microsoft."))
    frame.origin = FrameOrigin::runtime;
  return true;
}

// As LuaJIT writes them: "TRACE_3::shop/price.lua:24", a number and where the trace begins.
bool parse_luajit(std::string_view name, Frame& frame) {
  constexpr std::string_view kTrace = "TRACE_";
  const size_t colons = name.find("::");
  if (!name.starts_with(kTrace) || colons == std::string_view::npos) return false;
  const std::string_view trace = name.substr(0, colons);
  std::string_view file = name.substr(colons + 2);
  int line = 0;
  if (trace.find_first_not_of("0123456789", kTrace.size()) != std::string_view::npos ||
      !take_number(file, line))
    return false;
  frame.function = to_utf8(trace);
  frame.file = to_utf8(file);
  frame.line = line;
  frame.at_definition = true;
  return true;
}

// As Ruby's YJIT writes them: "[JIT] Shop#price".
std::string_view without_jit(std::string_view name) {
  constexpr std::string_view kJit = "[JIT] ";
  return name.starts_with(kJit) ? name.substr(kJit.size()) : name;
}

}  // namespace

void parse_jit_name(std::string_view name, Frame& frame) {
  frame.origin = FrameOrigin::application;
  if (!parse_v8(name, frame) && !parse_jsc(name, frame) && !parse_java(name, frame) &&
      !parse_dotnet(name, frame) && !parse_luajit(name, frame)) {
    if (name.starts_with("py::")) {
      const std::string_view rest = name.substr(4);
      const size_t colon = rest.find(':');
      frame.function = to_utf8(rest.substr(0, colon));
      if (colon != std::string_view::npos) frame.file = to_utf8(rest.substr(colon + 1));
    } else {
      frame.function = to_utf8(demangle(without_jit(name)));
      for (const std::string_view own : {"Builtin:", "BytecodeHandler:", "Stub:", "RegExp:"})
        if (name.starts_with(own)) frame.origin = FrameOrigin::runtime;
    }
  }
  frame.origin = source_origin(frame.file, frame.origin);
}

}  // namespace looptrace
