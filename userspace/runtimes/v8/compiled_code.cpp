// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/compiled_code.h"

#include <algorithm>
#include <array>
#include <vector>

namespace looptrace::v8 {
namespace {

constexpr uint64_t kAlignment = 32;     // of instructions, at least
constexpr uint64_t kPage = 256u << 10;  // of V8's heap: only what is larger than half of one crosses its end
constexpr uint64_t kFirstPiece = 4u << 10;
constexpr int kForgetEmpty = 4096;  // searches after which such a page is looked at again
constexpr int kMostGuesses = 64;    // words that are looked at while the header's map is not known

}  // namespace

std::optional<CompiledCode> CodeFinder::read(uint64_t start) {
  const Layout& layout = heap_.layout();
  const uint64_t header = start - static_cast<uint64_t>(layout.code.header) + 1;
  CompiledCode code;
  code.object = header;
  if (layout.code.header_code) code.object = heap_.word(header, layout.code.header_code);
  std::array<uint8_t, 64> bytes;
  if (!heap_.read(code.object, layout.type.code, bytes.data(), bytes.size())) return std::nullopt;
  code.start = layout.code.start ? load<uint64_t>(bytes.data(), layout.code.start) : start;
  code.size = load<uint32_t>(bytes.data(), layout.code.size);
  code.made_from = load<uint64_t>(bytes.data(), layout.code.made_from);
  code.positions = load<uint64_t>(bytes.data(), layout.code.positions);
  if (code.start != start || code.size > kPage) return std::nullopt;
  return code;
}

std::optional<CompiledCode> CodeFinder::find(uint64_t pc) {
  const Layout& layout = heap_.layout();
  const uint64_t page = pc & ~(kPage - 1), header = static_cast<uint64_t>(layout.code.header);
  if (++searches_ % kForgetEmpty == 0) empty_.clear();
  if (const auto known = empty_.find(page); known != empty_.end() && pc <= known->second) return std::nullopt;
  int guesses = 0;
  std::vector<uint64_t> words;
  uint64_t high = (pc & ~(kAlignment - 1)) + kAlignment;  // instructions that begin below it are looked for
  for (uint64_t piece = kFirstPiece; high > page + header; piece *= 4) {
    const uint64_t low = std::max(page + header, high > piece ? high - piece : 0) & ~(kAlignment - 1);
    words.resize((high - low) / 8);
    if (!heap_.memory().read(low - header, words.data(), words.size() * 8)) return std::nullopt;
    for (uint64_t start = high - kAlignment; start >= low; start -= kAlignment) {
      const uint64_t map = words[(start - low) / 8];
      if (header_map_ ? map != header_map_ : !is_object(map) || ++guesses > kMostGuesses) continue;
      if (!header_map_ && !heap_.is(start - header + 1, layout.type.code_header)) continue;
      const auto code = read(start);
      if (!code) continue;
      header_map_ = map;
      // One past the end: the return address of a call that never returns.
      if (pc - start > code->size) return std::nullopt;
      return code;
    }
    high = low;
    if (low <= page + header) break;
  }
  if (header_map_) empty_[page] = pc;
  return std::nullopt;
}

}  // namespace looptrace::v8
