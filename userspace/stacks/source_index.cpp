// SPDX-License-Identifier: Apache-2.0
#include "stacks/source_index.h"

#include <algorithm>
#include <limits>

namespace looptrace {
namespace {

constexpr size_t kRowsInBlock = 64;
constexpr size_t kMaxRows = 4u << 20;

// A row begins with a number made of how much further its line is and whether file and inlining are others.
constexpr uint64_t kNewFile = 1, kNewInlined = 2;
constexpr int kLineShift = 2;

void put(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

uint64_t take(std::string_view in, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0; at < in.size() && shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(in[at++]);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) break;
  }
  return value;
}

// Small numbers for small distances in both directions.
uint64_t zigzag(int64_t value) { return static_cast<uint64_t>(value) << 1 ^ (value < 0 ? ~uint64_t{0} : 0); }
int64_t unzigzag(uint64_t value) { return static_cast<int64_t>(value >> 1 ^ (value & 1 ? ~uint64_t{0} : 0)); }

}  // namespace

uint32_t SourceIndexBuilder::text(std::string_view text) {
  if (text.empty()) return 0;
  const auto [it, added] = texts_.try_emplace(std::string(text), texts_.size() + 1);
  if (added) {
    index_.texts_ += text;
    index_.text_ends_.push_back(static_cast<uint32_t>(index_.texts_.size()));
  }
  return it->second;
}

uint32_t SourceIndexBuilder::inlined(const Inlined& inlined) {
  if (index_.inlined_.empty() || index_.inlined_.back() != inlined) index_.inlined_.push_back(inlined);
  return static_cast<uint32_t>(index_.inlined_.size());
}

void SourceIndexBuilder::begin() {
  end_block();
  last_ = {};
}

void SourceIndexBuilder::end_block() {
  if (!in_block_) return;
  index_.anchors_.back().rows = static_cast<uint32_t>(in_block_);
  in_block_ = 0;
}

bool SourceIndexBuilder::add(uint64_t address, uint32_t file, uint32_t line, uint32_t inlined) {
  const uint64_t pc = address - index_.base_;
  if (pc > std::numeric_limits<uint32_t>::max() || index_.count_ == kMaxRows) return false;
  if (in_block_ && file == last_.file && line == last_.line && inlined == last_.inlined) return true;
  const Row row{static_cast<uint32_t>(pc), file, line, inlined};
  std::string& packed = index_.packed_;
  if (in_block_ == kRowsInBlock) end_block();
  if (!in_block_) {
    index_.anchors_.push_back({row.pc, static_cast<uint32_t>(packed.size()), 0});
    last_ = {row.pc, 0, 0, 0};
  }
  put(packed, row.pc - last_.pc);
  put(packed, zigzag(int64_t{line} - int64_t{last_.line}) << kLineShift |
                  (file != last_.file ? kNewFile : 0) | (inlined != last_.inlined ? kNewInlined : 0));
  if (file != last_.file) put(packed, file);
  if (inlined != last_.inlined) put(packed, inlined);
  last_ = row;
  ++in_block_;
  ++index_.count_;
  return true;
}

SourceIndex SourceIndexBuilder::finish() {
  end_block();
  std::sort(index_.anchors_.begin(), index_.anchors_.end(),
            [](const auto& a, const auto& b) { return a.pc < b.pc; });
  index_.packed_.shrink_to_fit();
  index_.anchors_.shrink_to_fit();
  index_.inlined_.shrink_to_fit();
  index_.texts_.shrink_to_fit();
  index_.text_ends_.shrink_to_fit();
  return std::move(index_);
}

std::string SourceIndex::text(uint32_t number) const {
  if (number == 0 || number > text_ends_.size()) return {};
  const uint32_t begin = number > 1 ? text_ends_[number - 2] : 0;
  return texts_.substr(begin, text_ends_[number - 1] - begin);
}

std::vector<ElfObject::Position> SourceIndex::positions(uint64_t address) const {
  const uint64_t wanted = address - base_;
  const auto after = std::upper_bound(anchors_.begin(), anchors_.end(), wanted,
                                      [](uint64_t pc, const Anchor& anchor) { return pc < anchor.pc; });
  if (address < base_ || after == anchors_.begin()) return {};
  const Anchor& block = *std::prev(after);
  Row here{}, row{block.pc, 0, 0, 0};
  size_t at = block.offset;
  for (uint32_t i = 0; i < block.rows; ++i, here = row) {
    row.pc += static_cast<uint32_t>(take(packed_, at));
    const uint64_t what = take(packed_, at);
    row.line = static_cast<uint32_t>(row.line + unzigzag(what >> kLineShift));
    if (what & kNewFile) row.file = static_cast<uint32_t>(take(packed_, at));
    if (what & kNewInlined) row.inlined = static_cast<uint32_t>(take(packed_, at));
    if (row.pc > wanted) break;
  }
  std::vector<ElfObject::Position> result;
  ElfObject::Position position{{}, text(here.file), static_cast<int>(here.line)};
  for (uint32_t number = here.inlined; number; number = inlined_[number - 1].outer) {
    const Inlined& inlined = inlined_[number - 1];
    position.function = text(inlined.function);
    result.push_back(std::move(position));
    position = {{}, text(inlined.file), static_cast<int>(inlined.line)};
  }
  if (!result.empty() || here.file || here.line) result.push_back(std::move(position));
  return result;
}

size_t SourceIndex::bytes() const {
  return packed_.capacity() + anchors_.capacity() * sizeof(Anchor) + inlined_.capacity() * sizeof(Inlined) +
         texts_.capacity() + text_ends_.capacity() * sizeof(uint32_t);
}

}  // namespace looptrace
