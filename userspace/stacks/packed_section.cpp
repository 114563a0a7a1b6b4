// SPDX-License-Identifier: Apache-2.0
#include "stacks/packed_section.h"

#include <algorithm>
#include <array>

#include "stacks/elf_file.h"

namespace looptrace {
namespace {

// Of what lies between two kept states half is unpacked in vain, on average: 0.3 ms.
constexpr uint64_t kSpacing = 128u << 10;
constexpr uint64_t kMaxStates = 64;
constexpr size_t kStateBytes = 40u << 10;
constexpr uint64_t kPiece = 16u << 10;

}  // namespace

PackedSection::PackedSection(const ElfFile& file, uint64_t packed_at, uint64_t packed_size, uint64_t size)
    : file_(file),
      packed_at_(packed_at),
      packed_end_(packed_at + packed_size),
      size_(size),
      spacing_(std::max(kSpacing, size / kMaxStates)) {}

bool PackedSection::begin() {
  if (!kept_.empty()) return true;
  auto stream = std::make_unique<z_stream>();
  *stream = {};
  if (inflateInit(stream.get()) != Z_OK) return false;
  State& first = kept_.emplace_back();
  first.stream.reset(stream.release());
  first.packed_at = packed_at_;
  return true;
}

PackedSection::State PackedSection::copy(const State& from) {
  State result;
  auto stream = std::make_unique<z_stream>();
  if (inflateCopy(stream.get(), from.stream.get()) != Z_OK) return result;
  result.stream.reset(stream.release());
  result.at = from.at;
  result.packed_at = from.packed_at;
  return result;
}

bool PackedSection::inflate_some(State& state, uint8_t* into, uint64_t size) {
  std::array<uint8_t, kPiece> packed;
  z_stream& stream = *state.stream;
  stream.next_out = into;
  stream.avail_out = static_cast<uInt>(size);
  while (stream.avail_out) {
    const uint64_t piece = std::min<uint64_t>(packed.size(), packed_end_ - state.packed_at);
    if (piece == 0 || !file_.pread(state.packed_at, packed.data(), piece)) return false;
    stream.next_in = packed.data();
    stream.avail_in = static_cast<uInt>(piece);
    const int result = inflate(&stream, Z_NO_FLUSH);
    state.packed_at += piece - stream.avail_in;
    if (result != Z_OK && (result != Z_STREAM_END || stream.avail_out)) return false;
  }
  state.at += size;
  return true;
}

bool PackedSection::read(uint64_t from, uint64_t to, uint8_t* into) {
  if (from > to || to > size_ || !begin()) return false;
  const auto after = std::upper_bound(kept_.begin(), kept_.end(), from,
                                      [](uint64_t at, const State& state) { return at < state.at; });
  const bool goes_on = last_.stream && last_.at <= from && last_.at >= std::prev(after)->at;
  State state = goes_on ? std::move(last_) : copy(*std::prev(after));
  if (!state.stream) return false;
  std::array<uint8_t, kPiece> unwanted;
  while (state.at < to) {
    const bool wanted = state.at >= from;
    uint64_t end = wanted ? to : std::min<uint64_t>(from, state.at + unwanted.size());
    if (const uint64_t keep_at = kept_.back().at + spacing_; keep_at > state.at) end = std::min(end, keep_at);
    if (!inflate_some(state, wanted ? into + (state.at - from) : unwanted.data(), end - state.at))
      return false;
    if (state.at < kept_.back().at + spacing_) continue;
    if (State keep = copy(state); keep.stream) kept_.push_back(std::move(keep));
  }
  last_ = std::move(state);
  return true;
}

size_t PackedSection::bytes() const { return (kept_.size() + (last_.stream ? 1 : 0)) * kStateBytes; }

}  // namespace looptrace
