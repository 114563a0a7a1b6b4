// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace looptrace::v8 {

/// A source map (ECMA-426, version 3): where in the sources each position of a generated file came from. Read
/// from a file of the traced process's, so nothing in it is trusted: at most 16 MiB of text, 2^19 segments,
/// 2^12 sections.
class SourceMap {
 public:
  static constexpr size_t kMaxText = 16u << 20;

  /// Nothing if `json` is no source map.
  static std::optional<SourceMap> parse(std::string_view json);

  struct Original {
    std::string_view source;  ///< as the map has it, behind its sourceRoot
    int line = 0;             ///< from 0
  };
  /// The original of a position (line and column from 0); nothing where the map has none.
  std::optional<Original> find(int line, int column) const;

  size_t bytes() const;

 private:
  struct Segment {
    uint32_t line, column;  // generated
    int32_t source;         // -1 = generated code without a source
    uint32_t original;      // line
  };
  bool decode(std::string_view mappings, uint32_t line, uint32_t first_column);

  std::vector<std::string> sources_;
  std::vector<Segment> segments_;  // by line and column
};

/// Takes one base64 VLQ off the front of `text`; nothing if there is none or it does not fit 32 bits.
std::optional<int32_t> take_vlq(std::string_view& text);

/// Decodes standard base64 up to the first character that is none of its alphabet.
std::string decode_base64(std::string_view text);

}  // namespace looptrace::v8
