// SPDX-License-Identifier: Apache-2.0
#include "sinks/folded.h"

#include <array>
#include <cinttypes>
#include <cmath>
#include <cstdio>

#include "sinks/terminal_text.h"

namespace looptrace {
namespace {

// A field of the format: no separator, no line break, no control character.
void append_field(std::string& out, std::string_view text) {
  std::string field = printable(text);
  for (char& c : field) {
    if (c == ';') c = ':';
  }
  out += field.empty() ? "[unknown]" : field;
}

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string frame_name(const Frame& frame) {
  std::string name = frame.function;
  if (name.empty() && !frame.module.empty()) {
    std::array<char, 24> offset;
    std::snprintf(offset.data(), offset.size(), "+0x%" PRIx64 "]", frame.offset);
    name = '[' + frame.module + offset.data();
  }
  // Names of interpreted functions ("<module>", "run") say little without their file.
  const bool interpreted = frame.kind == FrameKind::python || frame.kind == FrameKind::javascript;
  if (interpreted && !frame.file.empty()) {
    name += " (";
    name += base_name(frame.file);
    name += ')';
  }
  if (frame.kind == FrameKind::kernel) name += "_k";
  return name;
}

}  // namespace

Result<void> FoldedSink::stall(const Stall& record) {
  if (record.state != StallState::closed) return {};
  lines_.clear();
  for (const Stack& stack : record.stacks) {
    if (!stack.weight_ns || stack.frames.empty()) continue;
    append_field(lines_, record.process.comm);
    lines_ += ';';
    append_field(lines_, record.thread_name);
    for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) {
      lines_ += ';';
      append_field(lines_, frame_name(*frame));
    }
    const double weight = static_cast<double>(stack.weight_ns) * record.sample_weight;
    lines_ += ' ' + std::to_string(record.sample_weight == 1.0 ? stack.weight_ns
                                                               : static_cast<uint64_t>(std::llround(weight)));
    lines_ += '\n';
  }
  return lines_.empty() ? Result<void>() : writer_.write(lines_);
}

}  // namespace looptrace
