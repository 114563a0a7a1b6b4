// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/line_ends.h"

#include <algorithm>
#include <array>

namespace looptrace::v8 {
namespace {

constexpr uint32_t kMaxCharacters = 32u << 20;
constexpr uint32_t kMaxLines = 2u << 20;
constexpr size_t kPiece = 256u << 10;

std::vector<uint32_t> own_line_ends(Heap& heap, uint64_t array) {
  const Layout& layout = heap.layout();
  std::array<uint64_t, 2> head;
  if (!heap.read(array, layout.type.fixed_array, head.data(), sizeof head) || !is_smi(head[1])) return {};
  const int32_t length = to_int(head[1]);
  if (length <= 0 || static_cast<uint32_t>(length) > kMaxLines) return {};
  std::vector<uint32_t> ends;
  ends.reserve(static_cast<size_t>(length));
  std::vector<uint64_t> words(std::min<size_t>(static_cast<size_t>(length), kPiece / 8));
  uint64_t address = array - 1 + static_cast<uint64_t>(layout.array.data);
  while (ends.size() < static_cast<size_t>(length)) {
    const size_t n = std::min(words.size(), static_cast<size_t>(length) - ends.size());
    if (!heap.memory().read(address, words.data(), n * 8)) return {};
    for (size_t i = 0; i < n; ++i) {
      const auto end = static_cast<uint32_t>(to_int(words[i]));
      if (!is_smi(words[i]) || (!ends.empty() && end <= ends.back())) return {};
      ends.push_back(end);
    }
    address += n * 8;
  }
  return ends;
}

template <typename Character>
std::vector<uint32_t> count_line_ends(const Heap& heap, const Heap::Characters& text) {
  std::vector<uint32_t> ends;
  std::vector<Character> piece(std::min<size_t>(text.length, kPiece));
  bool pending_return = false;
  for (uint32_t at = 0; at < text.length; at += static_cast<uint32_t>(piece.size())) {
    piece.resize(std::min<size_t>(piece.size(), text.length - at));
    if (!heap.memory().read(text.address + at * sizeof(Character), piece.data(),
                            piece.size() * sizeof(Character)))
      return {};
    scan_line_ends(std::span<const Character>(piece), at, pending_return, ends);
    if (ends.size() > kMaxLines) return {};
  }
  if (pending_return) ends.push_back(text.length - 1);
  ends.push_back(text.length);
  return ends;
}

}  // namespace

template <typename Character>
void scan_line_ends(std::span<const Character> piece, uint32_t position, bool& pending_return,
                    std::vector<uint32_t>& ends) {
  for (const Character c : piece) {
    if (pending_return) {
      pending_return = false;
      // Of \r\n the line feed is the end.
      if (c != '\n') ends.push_back(position - 1);
    }
    if (c == '\r') {
      pending_return = true;
    } else if (c == '\n') {
      ends.push_back(position);
    } else if constexpr (sizeof(Character) == 2) {
      if (c == 0x2028 || c == 0x2029) ends.push_back(position);
    }
    ++position;
  }
}
template void scan_line_ends(std::span<const uint8_t>, uint32_t, bool&, std::vector<uint32_t>&);
template void scan_line_ends(std::span<const char16_t>, uint32_t, bool&, std::vector<uint32_t>&);

std::optional<LineEnds::Place> LineEnds::find(int position) const {
  if (position < 0) return std::nullopt;
  const auto end = std::lower_bound(ends_.begin(), ends_.end(), static_cast<uint32_t>(position));
  if (end == ends_.end()) return std::nullopt;
  const uint32_t start = end == ends_.begin() ? 0 : *(end - 1) + 1;
  return Place{static_cast<int>(end - ends_.begin()), position - static_cast<int>(start)};
}

LineEnds read_line_ends(Heap& heap, uint64_t line_ends, uint64_t source) {
  if (auto ends = own_line_ends(heap, line_ends); !ends.empty()) return LineEnds(std::move(ends));
  const auto text = heap.characters(source);
  if (!text || text->length > kMaxCharacters) return {};
  return LineEnds(text->two_bytes ? count_line_ends<char16_t>(heap, *text)
                                  : count_line_ends<uint8_t>(heap, *text));
}

}  // namespace looptrace::v8
