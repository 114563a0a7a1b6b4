// SPDX-License-Identifier: Apache-2.0
#include "record/fingerprint.h"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <string_view>

namespace looptrace {
namespace {

// FNV-1a, 64 bits, over fields that are each closed by a byte which text cannot hold.
class Hash {
 public:
  void field(std::string_view text) {
    for (const char c : text) byte(static_cast<unsigned char>(c));
    byte(0xff);
  }
  uint64_t value() const { return value_; }

 private:
  void byte(unsigned char b) { value_ = (value_ ^ b) * 0x100000001b3u; }
  uint64_t value_ = 0xcbf29ce484222325u;
};

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string_view family(std::string_view runtime) { return runtime.substr(0, runtime.find(' ')); }

std::string_view code_of(const Frame& frame) {
  if (!frame.build_id.empty()) return frame.build_id;
  // The source file of native code is known only where debug data is installed.
  if (frame.kind == FrameKind::native && !frame.module.empty()) return frame.module;
  if (!frame.file.empty()) return base_name(frame.file);
  return frame.module;
}

std::string name_of(const Frame& frame) {
  if (!frame.function.empty()) return frame.function;
  // An offset is stable only within a file.
  return code_of(frame).empty() ? std::string() : std::to_string(frame.offset);
}

}  // namespace

std::string fingerprint(const Stall& stall, const std::optional<CulpritPlace>& culprit) {
  Hash hash;
  hash.field(family(stall.process.runtime));
  hash.field(cause_name(stall.cause));
  if (culprit && culprit->stack < stall.stacks.size()) {
    const std::vector<Frame>& frames = stall.stacks[culprit->stack].frames;
    std::string previous;
    for (size_t i = culprit->frame; i < frames.size(); ++i) {
      const Frame& frame = frames[i];
      if (i != culprit->frame && (frame.kind == FrameKind::kernel || frame.kind == FrameKind::inlined))
        continue;
      std::string identity(code_of(frame));
      identity += '\xff';
      identity += name_of(frame);
      if (identity == previous) continue;
      hash.field(identity);
      previous = std::move(identity);
    }
  }
  std::array<char, 17> text;
  std::snprintf(text.data(), text.size(), "%016" PRIx64, hash.value());
  return text.data();
}

}  // namespace looptrace
