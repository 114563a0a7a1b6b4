// SPDX-License-Identifier: Apache-2.0
#include "runtimes/hotspot/code_cache.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <utility>

namespace looptrace::hotspot {
namespace {

constexpr uint64_t kMaxReserved = 2ull << 30;  // HotSpot's own limit (CODE_CACHE_SIZE_LIMIT)
constexpr int kMaxHeaps = 8;                   // there are three, or one
constexpr size_t kMaxCodeOfBlob = 1u << 20;    // that is looked through for epilogues
// CodeCacheSegmentSize: 64 or 128 from JDK 11 to 22. An experimental option sets 32 to 1024; the smallest is
// left out, as it would double the map.
constexpr int kMinLog2Segment = 6, kMaxLog2Segment = 10;
constexpr uint8_t kSegmapFree = 0xff;
constexpr size_t kMaxNames = 4096;

template <typename T>
T value_at(const std::vector<uint8_t>& bytes, uint64_t offset) {
  T value{};
  if (offset + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

bool is_compiled_method(const CodeBlob& blob) {
  return blob.name == "nmethod" || blob.name == "native nmethod";
}

// Whose rows are found by a look at the code.
bool is_looked_through(const CodeBlob& blob) {
  return is_compiled_method(blob) || blob.name.starts_with("StubRoutines");
}

// Length of "add rsp, n; pop rbp" without the pop, at `at`; 0 if something else is there.
size_t frame_removal(const std::vector<uint8_t>& code, size_t at) {
  constexpr uint8_t kPopRbp = 0x5d;
  if (at + 5 <= code.size() && code[at] == 0x48 && code[at + 1] == 0x83 && code[at + 2] == 0xc4 &&
      code[at + 4] == kPopRbp)
    return 4;
  if (at + 8 <= code.size() && code[at] == 0x48 && code[at + 1] == 0x81 && code[at + 2] == 0xc4 &&
      code[at + 7] == kPopRbp)
    return 7;
  return 0;
}

// Where compiled code has one word more on its stack than its frame: [begin, end) without the two bytes of
// [pause, pause + 2).
struct PushedWord {
  size_t begin = 0, pause = 0, end = 0;
};

// C2 compiles String.compareTo() in place, with the difference of the lengths pushed meanwhile:
//   mov eax, n1; sub n1, n2; push n1; cmovle n2, eax; ...; pop rax; jmp done; ...; pop n1; done:
// n1 is ecx, or edx where the strings' encodings differ. To be asked in the order of addresses: no end is
// looked for twice.
class Comparisons {
 public:
  explicit Comparisons(const std::vector<uint8_t>& code) : code_(code) {}

  std::optional<PushedWord> at(size_t at) {
    constexpr size_t kLongest = 1024;
    for (Kind& kind : kinds_) {
      if (at + kind.start.size() > code_.size() ||
          !std::equal(kind.start.begin(), kind.start.end(), code_.begin() + static_cast<ptrdiff_t>(at)))
        continue;
      kind.end = std::max(kind.end, at + kind.start.size());
      const size_t last = std::min(code_.size(), at + kLongest);
      while (kind.end + 3 < last && !ends(kind, kind.end)) ++kind.end;
      if (kind.end + 3 >= last) return std::nullopt;
      return PushedWord{at + 5, kind.end + 1, done(kind.end)};
    }
    return std::nullopt;
  }

 private:
  struct Kind {
    std::array<uint8_t, 8> start;
    size_t end = 0;  // there is none before, behind the start that was asked for last
  };

  size_t done(size_t end) const { return end + 3 + code_[end + 2]; }

  bool ends(const Kind& kind, size_t end) const {
    constexpr uint8_t kPopRax = 0x58, kJump = 0xeb;
    const auto pop = static_cast<uint8_t>(kind.start[4] + 8);  // of the register that was pushed
    return code_[end] == kPopRax && code_[end + 1] == kJump && code_[end + 2] != 0 &&
           code_[end + 2] <= INT8_MAX && done(end) <= code_.size() && code_[done(end) - 1] == pop;
  }

  const std::vector<uint8_t>& code_;
  std::array<Kind, 2> kinds_ = {{{{0x8b, 0xc1, 0x2b, 0xca, 0x51, 0x0f, 0x4e, 0xd0}},
                                 {{0x8b, 0xc2, 0x2b, 0xd1, 0x52, 0x0f, 0x4e, 0xca}}}};
};

// Where no code was when the cache was read. It may be compiled by now, and has no frame pointer to go by.
constexpr lt_row kUnknown{0, LT_ROW_UNSUPPORTED, 0, 0};

// The rows of one blob as they are found in its code, from start to end.
class RowsOfBlob {
 public:
  RowsOfBlob(const CodeBlob& blob, uint64_t low, const std::vector<uint8_t>& code)
      : blob_(blob), low_(low), code_(code) {}

  std::vector<lt_row> take() {
    if (blob_.name == "Interpreter") {
      at(0, {0, LT_ROW_INTERPRETED, 0, 0});
    } else if (blob_.name.starts_with("vtable") || blob_.name.find("adapters") != std::string::npos ||
               blob_.name == "InlineCacheBuffer") {
      at(0, kReturnOnTop);  // they jump on, and change rsp at their end only
    } else if (blob_.frame_words < 2 || blob_.frame_words >= INT16_MAX) {
      stubs();
    } else {
      prologue();
      body();
    }
    at(blob_.end - blob_.start, kUnknown);
    return std::move(rows_);
  }

 private:
  static constexpr lt_row kReturnOnTop{0, LT_ROW_RSP, 0, 1}, kPushedRbp{0, LT_ROW_RSP, -2, 2},
      kFramePointer{0, LT_ROW_GAP, 0, 0};
  static constexpr uint8_t kPushRbp = 0x55, kReturn = 0xc3;

  void at(size_t offset, lt_row row) {
    row.pc = static_cast<uint32_t>(blob_.start - low_ + offset);
    if (!rows_.empty() && rows_.back().pc == row.pc) rows_.pop_back();
    rows_.push_back(row);
  }

  // rbp is saved right below the return address, whether it becomes a frame pointer or not.
  lt_row whole() const { return {0, LT_ROW_RSP, -2, static_cast<int16_t>(blob_.frame_words)}; }

  bool has(size_t offset, std::initializer_list<uint8_t> bytes) const {
    return offset + bytes.size() <= code_.size() &&
           std::equal(bytes.begin(), bytes.end(), code_.begin() + static_cast<ptrdiff_t>(offset));
  }

  // Length of "sub rsp, n" at an offset; 0 if something else is there.
  size_t frame_made(size_t offset) const {
    if (has(offset, {0x48, 0x83, 0xec})) return 4;
    return has(offset, {0x48, 0x81, 0xec}) ? 7 : 0;
  }

  // Up to where the frame is complete: push rbp; sub rsp, n. Small frames: sub rsp, n; mov [rsp + m], rbp.
  // From JDK 19 on, a look at whether the method may be entered comes before the frame counts as complete.
  void prologue() {
    const auto complete = static_cast<size_t>(std::max(blob_.frame_complete, 0));
    if (complete) at(0, kReturnOnTop);
    for (size_t i = 0; i < std::min(complete, code_.size()); ++i) {
      const size_t pushed = code_[i] == kPushRbp ? 1 : 0, made = frame_made(i + pushed);
      if (made && pushed) {
        at(i + 1, kPushedRbp);
        at(i + 1 + made, whole());
        return;
      }
      if (made && has(i + made, {0x48, 0x89, 0x6c, 0x24})) {
        lt_row without_rbp = whole();
        without_rbp.bp = 0;
        at(i + made, without_rbp);
        at(i + made + 5, whole());
        return;
      }
    }
    at(complete, whole());
  }

  // Epilogues are: add rsp, n; pop rbp; a poll for safepoints; ret.
  void body() {
    constexpr size_t kFarthestReturn = 24;
    Comparisons comparisons(code_);
    for (size_t i = static_cast<size_t>(std::max(blob_.frame_complete, 0)); i < code_.size(); ++i) {
      if (const auto pushed = comparisons.at(i)) {
        lt_row deeper = whole();
        ++deeper.cfa;
        at(pushed->begin, deeper);
        at(pushed->pause, whole());
        at(pushed->pause + 2, deeper);
        at(pushed->end, whole());
        i = pushed->end - 1;
        continue;
      }
      const size_t removal = frame_removal(code_, i);
      if (!removal) continue;
      const size_t pop = i + removal;
      size_t end = pop + 1;
      while (end < code_.size() && end < pop + kFarthestReturn && code_[end] != kReturn) ++end;
      if (end == code_.size() || code_[end] != kReturn) continue;
      at(pop, kPushedRbp);
      at(pop + 1, kReturnOnTop);
      at(end + 1, whole());
      i = end;
    }
  }

  // Several in one blob, with frame pointers: push rbp; mov rbp, rsp; ...; leave; ret, or leave; vzeroupper;
  // ret.
  void stubs() {
    at(0, kFramePointer);
    for (size_t i = 0; i < code_.size(); ++i) {
      if (has(i, {kPushRbp, 0x48, 0x8b, 0xec})) {
        at(i, kReturnOnTop);
        at(i + 1, kPushedRbp);
        at(i + 4, kFramePointer);
      } else if (has(i, {0xc9, kReturn})) {
        at(i + 1, kReturnOnTop);
        at(i + 2, kFramePointer);
      } else if (has(i, {0xc9, 0xc5, 0xf8, 0x77, kReturn})) {
        at(i + 1, kReturnOnTop);
        at(i + 5, kFramePointer);
      }
    }
  }

  const CodeBlob& blob_;
  uint64_t low_;
  const std::vector<uint8_t>& code_;
  std::vector<lt_row> rows_;
};

}  // namespace

std::vector<lt_row> rows_of(const CodeBlob& blob, uint64_t low, const std::vector<uint8_t>& code) {
  return RowsOfBlob(blob, low, code).take();
}

std::vector<std::string_view> CodeCache::types() {
  return {"CodeCache",         "CodeHeap", "VirtualSpace",   "HeapBlock",         "HeapBlock::Header",
          "CodeBlob",          "nmethod",  "CompiledMethod", "GrowableArrayBase", "GenericGrowableArray",
          "GrowableArray<int>"};
}

std::optional<CodeCache> CodeCache::of(const VmStructs& structs) {
  CodeCache cache;
  Layout& l = cache.layout_;
  NeededFields need(structs);
  const auto need_number = [&](std::string_view type, std::string_view field, uint64_t base = 0) {
    return Number{base + need(type, field), need.width(type, field)};
  };
  l.memory_low = need("CodeHeap", "_memory") + need("VirtualSpace", "_low");
  l.memory_high = need("CodeHeap", "_memory") + need("VirtualSpace", "_high");
  l.segmap = need("CodeHeap", "_segmap") + need("VirtualSpace", "_low");
  l.log2_segment = need("CodeHeap", "_log2_segment_size");
  l.heap = structs.address("CodeCache", "_heap");
  if (l.heap) {
    l.reserved_low = need("CodeHeap", "_memory") + need("VirtualSpace", "_low_boundary");
    l.reserved_high = need("CodeHeap", "_memory") + need("VirtualSpace", "_high_boundary");
  } else {
    l.heaps = need.address("CodeCache", "_heaps");
    l.low_bound = need.address("CodeCache", "_low_bound");
    l.high_bound = need.address("CodeCache", "_high_bound");
    l.array_length = structs.offset("GenericGrowableArray", "_len") ? need("GenericGrowableArray", "_len")
                                                                    : need("GrowableArrayBase", "_len");
    l.array_data = need("GrowableArray<int>", "_data");
  }
  const uint64_t header = need("HeapBlock", "_header");
  l.length = need_number("HeapBlock::Header", "_length", header);
  l.used = header + need("HeapBlock::Header", "_used");
  l.header = structs.size("HeapBlock").value_or(0);
  l.name = need("CodeBlob", "_name");
  l.frame_size = need("CodeBlob", "_frame_size");
  l.frame_complete = need_number("CodeBlob", "_frame_complete_offset");
  // As addresses in JDK 9 to 22.
  l.by_offset = !structs.offset("CodeBlob", "_code_begin");
  l.code_begin = need("CodeBlob", l.by_offset ? "_code_offset" : "_code_begin");
  l.code_end = need("CodeBlob", l.by_offset ? "_data_offset" : "_code_end");
  // JDK 9 to 22 have a CompiledMethod between the two.
  l.method = structs.offset("CompiledMethod", "_method") ? need("CompiledMethod", "_method")
                                                         : need("nmethod", "_method");
  l.compile_id = need("nmethod", "_compile_id");
  if (!need.all_found() || !l.header) return std::nullopt;
  l.block = l.header +
            std::max({l.name, l.frame_size, l.frame_complete.offset, l.code_begin, l.code_end, l.method,
                      l.compile_id}) +
            sizeof(uint64_t);
  return cache;
}

const std::string& CodeCache::blob_name(const RemoteMemory& memory, uint64_t address) {
  if (names_.size() > kMaxNames) names_.clear();
  const auto [it, is_new] = names_.try_emplace(address);
  if (is_new) it->second = read_text(memory, address);
  return it->second;
}

std::optional<CodeBlob> CodeCache::read_blob(const RemoteMemory& memory, uint64_t address, uint64_t end,
                                             const std::vector<uint8_t>& block) {
  const auto word = [&](uint64_t offset) { return value_at<uint64_t>(block, layout_.header + offset); };
  const auto number = [&](uint64_t offset) { return value_at<int32_t>(block, layout_.header + offset); };
  const auto place = [&](uint64_t offset) {
    return layout_.by_offset ? address + static_cast<uint32_t>(number(offset)) : word(offset);
  };
  CodeBlob blob;
  blob.address = address;
  blob.start = place(layout_.code_begin);
  blob.end = place(layout_.code_end);
  if (blob.start < address || blob.end > end || blob.start >= blob.end) return std::nullopt;
  blob.frame_words = number(layout_.frame_size);
  blob.frame_complete = layout_.frame_complete.width == 2
                            ? value_at<int16_t>(block, layout_.header + layout_.frame_complete.offset)
                            : number(layout_.frame_complete.offset);
  if (static_cast<int64_t>(blob.frame_complete) > static_cast<int64_t>(blob.end - blob.start))
    return std::nullopt;
  blob.name = blob_name(memory, word(layout_.name));
  if (is_compiled_method(blob)) {
    blob.method = word(layout_.method);
    blob.compile_id = static_cast<uint32_t>(number(layout_.compile_id));
  }
  return blob;
}

void CodeCache::read_heap(const RemoteMemory& memory, uint64_t heap, Update& update) {
  const uint64_t low = memory.pointer(heap + layout_.memory_low),
                 high = memory.pointer(heap + layout_.memory_high);
  const uint64_t segmap_at = memory.pointer(heap + layout_.segmap);
  const int log2 = memory.get<int32_t>(heap + layout_.log2_segment).value_or(0);
  if (low < low_ || high > high_ || low >= high) return;
  if (log2 < kMinLog2Segment || log2 > kMaxLog2Segment) {
    ++update.left_out;
    return;
  }
  const size_t segments = (high - low) >> log2;
  std::vector<uint8_t> segmap(segments);
  for (size_t at = 0; at < segments;) {
    const size_t n =
        memory.read_some(segmap_at + at, segmap.data() + at, std::min<size_t>(segments - at, 1u << 20));
    if (!n) return;
    at += n;
  }
  std::vector<uint8_t> block(layout_.block);
  for (size_t i = 0; i < segments;) {
    // The map says how far back a block begins: 0 at its first segment.
    if (segmap[i] == kSegmapFree) return;
    if (update.found.size() >= kMaxBlobs || update.blocks >= kMaxBlocks) {
      ++update.left_out;
      return;
    }
    ++update.blocks;
    if (!memory.read(low + (i << log2), block.data(), block.size())) return;
    const uint64_t length = layout_.length.width == 4 ? value_at<uint32_t>(block, layout_.length.offset)
                                                      : value_at<uint64_t>(block, layout_.length.offset);
    if (length == 0 || length > segments - i) return;
    const uint64_t address = low + (i << log2) + layout_.header;
    i += length;
    if (value_at<uint8_t>(block, layout_.used) != 1) continue;
    if (auto blob = read_blob(memory, address, low + (i << log2), block))
      take_blob(memory, std::move(*blob), update);
  }
}

void CodeCache::take_blob(const RemoteMemory& memory, CodeBlob blob, Update& update) {
  Known known;
  if (const auto old = blobs_.find(blob.start); old != blobs_.end() && old->second.blob == blob) {
    known = std::move(old->second);
  } else {
    std::vector<uint8_t> code(
        is_looked_through(blob) ? std::min<size_t>(blob.end - blob.start, kMaxCodeOfBlob) : 0);
    if (update.code + code.size() > kMaxCode) {
      ++update.left_out;
      return;
    }
    update.code += code.size();
    code.resize(code.empty() ? 0 : memory.read_some(blob.start, code.data(), code.size()));
    known.rows = rows_of(blob, low_, code);
    known.blob = std::move(blob);
  }
  if (update.rows + known.rows.size() > kMaxRows) {
    ++update.left_out;
    return;
  }
  update.rows += known.rows.size();
  const uint64_t start = known.blob.start;
  update.found.insert_or_assign(start, std::move(known));
}

void CodeCache::update(const RemoteMemory& memory) {
  std::vector<uint64_t> heaps;
  if (layout_.heap) {
    heaps.push_back(memory.pointer(layout_.heap));
    low_ = memory.pointer(heaps.front() + layout_.reserved_low);
    high_ = memory.pointer(heaps.front() + layout_.reserved_high);
  } else {
    low_ = memory.pointer(layout_.low_bound);
    high_ = memory.pointer(layout_.high_bound);
    const uint64_t array = memory.pointer(layout_.heaps);
    const int count = memory.get<int32_t>(array + layout_.array_length).value_or(0);
    const uint64_t data = memory.pointer(array + layout_.array_data);
    for (int i = 0; i < std::min(count, kMaxHeaps); ++i)
      heaps.push_back(memory.pointer(data + 8 * static_cast<uint64_t>(i)));
  }
  Update update;
  if (low_ < high_ && high_ - low_ <= kMaxReserved) {
    for (const uint64_t heap : heaps) read_heap(memory, heap, update);
  }
  blobs_ = std::move(update.found);
  left_out_ = update.left_out;
  auto rows = std::make_shared<std::vector<lt_row>>(1, kUnknown);
  for (const auto& [start, known] : blobs_) {
    for (const lt_row& row : known.rows) {
      // Where one blob ends another may begin; overlaps come of torn reads.
      if (!rows->empty() && row.pc < rows->back().pc) continue;
      if (!rows->empty() && row.pc == rows->back().pc) rows->pop_back();
      rows->push_back(row);
    }
  }
  rows_ = std::move(rows);
}

const CodeBlob* CodeCache::find(uint64_t address) const {
  auto it = blobs_.upper_bound(address);
  if (it == blobs_.begin()) return nullptr;
  --it;
  return address < it->second.blob.end ? &it->second.blob : nullptr;
}

bool CodeCache::still_holds(const RemoteMemory& memory, const CodeBlob& blob) {
  std::vector<uint8_t> block(layout_.block);
  return memory.read(blob.address - layout_.header, block.data(), block.size()) &&
         read_blob(memory, blob.address, blob.end, block) == blob;
}

}  // namespace looptrace::hotspot
