// SPDX-License-Identifier: Apache-2.0
// A code cache as a hostile process may have it: in this process, told of by tables that this program exports
// as libjvm.so does.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "runtimes/hotspot/code_cache.h"
#include "runtimes/hotspot/vm_structs.h"
#include "stacks/elf_object.h"
#include "stacks/module.h"

namespace {

constexpr uint64_t kHeader = 16;

struct FieldEntry {
  const char *type, *field;
  uint64_t is_static, offset;
  const void* address;
};
struct TypeEntry {
  const char* type;
  uint64_t size;
};
struct FakeHeap {
  uint8_t *low, *high, *segmap;
  int32_t log2;
};
struct FakeArray {
  uint64_t length;
  FakeHeap** data;
};
struct FakeBlob {
  const char* name;
  int32_t frame_words, frame_complete;
  const uint8_t *begin, *end;
  uint64_t method;
};

FakeHeap fake_heap;
FakeHeap* fake_heaps[] = {&fake_heap};
FakeArray fake_array{1, fake_heaps};
FakeArray* fake_array_at = &fake_array;
const uint8_t *fake_low, *fake_high;

FieldEntry fields[] = {
    {"CodeCache", "_heaps", 1, 0, &fake_array_at},
    {"CodeCache", "_low_bound", 1, 0, &fake_low},
    {"CodeCache", "_high_bound", 1, 0, &fake_high},
    {"GrowableArrayBase", "_len", 0, offsetof(FakeArray, length), nullptr},
    {"GrowableArray<int>", "_data", 0, offsetof(FakeArray, data), nullptr},
    {"CodeHeap", "_memory", 0, offsetof(FakeHeap, low), nullptr},
    {"CodeHeap", "_segmap", 0, offsetof(FakeHeap, segmap), nullptr},
    {"CodeHeap", "_log2_segment_size", 0, offsetof(FakeHeap, log2), nullptr},
    {"VirtualSpace", "_low", 0, 0, nullptr},
    {"VirtualSpace", "_high", 0, 8, nullptr},
    {"HeapBlock", "_header", 0, 0, nullptr},
    {"HeapBlock::Header", "_length", 0, 0, nullptr},
    {"HeapBlock::Header", "_used", 0, 8, nullptr},
    {"CodeBlob", "_name", 0, offsetof(FakeBlob, name), nullptr},
    {"CodeBlob", "_frame_size", 0, offsetof(FakeBlob, frame_words), nullptr},
    {"CodeBlob", "_frame_complete_offset", 0, offsetof(FakeBlob, frame_complete), nullptr},
    {"CodeBlob", "_code_begin", 0, offsetof(FakeBlob, begin), nullptr},
    {"CodeBlob", "_code_end", 0, offsetof(FakeBlob, end), nullptr},
    {"nmethod", "_method", 0, offsetof(FakeBlob, method), nullptr},
    {nullptr, nullptr, 0, 0, nullptr},
};
TypeEntry sizes[] = {{"HeapBlock", kHeader}, {nullptr, 0}};

}  // namespace

extern "C" {
#define EXPORTED __attribute__((used, visibility("default")))
EXPORTED const void* gHotSpotVMStructs = fields;
EXPORTED const void* gHotSpotVMTypes = sizes;
EXPORTED uint64_t gHotSpotVMStructEntryTypeNameOffset = offsetof(FieldEntry, type);
EXPORTED uint64_t gHotSpotVMStructEntryFieldNameOffset = offsetof(FieldEntry, field);
EXPORTED uint64_t gHotSpotVMStructEntryIsStaticOffset = offsetof(FieldEntry, is_static);
EXPORTED uint64_t gHotSpotVMStructEntryOffsetOffset = offsetof(FieldEntry, offset);
EXPORTED uint64_t gHotSpotVMStructEntryAddressOffset = offsetof(FieldEntry, address);
EXPORTED uint64_t gHotSpotVMStructEntryArrayStride = sizeof(FieldEntry);
EXPORTED uint64_t gHotSpotVMTypeEntryTypeNameOffset = offsetof(TypeEntry, type);
EXPORTED uint64_t gHotSpotVMTypeEntrySizeOffset = offsetof(TypeEntry, size);
EXPORTED uint64_t gHotSpotVMTypeEntryArrayStride = sizeof(TypeEntry);
#undef EXPORTED
}

namespace looptrace::hotspot {
namespace {

class HotspotCache : public testing::Test {
 protected:
  static constexpr size_t kSegment = 64;

  void SetUp() override { sizes[0].size = kHeader; }
  void TearDown() override {
    if (memory_) munmap(memory_, size_);
  }

  void make_heap(size_t size) {
    size_ = size;
    void* const memory =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    memory_ = static_cast<uint8_t*>(memory);
    segmap_.assign(size / kSegment, 0);
    fake_heap = {memory_, memory_ + size, segmap_.data(), 6};
    fake_low = memory_;
    fake_high = memory_ + size;
  }

  void put_block(size_t segment, uint64_t segments, bool used) {
    uint8_t* const at = memory_ + segment * kSegment;
    std::memcpy(at, &segments, sizeof segments);
    at[8] = used;
  }

  // A method with frames of 4 words in a block of its own; its code begins and ends where it says.
  void put_method(size_t segment, uint64_t segments, size_t begin, size_t end) {
    put_block(segment, segments, true);
    uint8_t* const block = memory_ + segment * kSegment;
    const FakeBlob blob{"nmethod", 4, 0, block + begin, block + end, 1};
    std::memcpy(block + kHeader, &blob, sizeof blob);
  }

  uint64_t address(size_t segment, size_t offset) const {
    return reinterpret_cast<uint64_t>(memory_ + segment * kSegment + offset);
  }

  std::optional<CodeCache> read() const {
    ObjectCache objects;
    const auto modules = ProcessModules::load(getpid(), objects);
    const Module* self = modules ? modules->find(reinterpret_cast<uint64_t>(&VmStructs::read)) : nullptr;
    if (!self || !self->object) return std::nullopt;
    const auto structs = VmStructs::read(process_, *self->object, self->bias, CodeCache::types());
    return structs ? CodeCache::of(*structs) : std::nullopt;
  }

  const RemoteMemory process_{getpid()};
  uint8_t* memory_ = nullptr;
  size_t size_ = 0;
  std::vector<uint8_t> segmap_;
};

TEST_F(HotspotCache, FindsWhatLiesInItsOwnBlock) {
  make_heap(1u << 20);
  put_method(0, 4, 64, 256);
  put_method(4, 4, 64, 257);  // into the next block
  put_method(8, 4, 48, 256);
  put_method(12, 4, 8, 256);  // its own header
  put_method(16, (size_ / kSegment) - 16, 128, 4096);
  auto cache = read();
  ASSERT_TRUE(cache);
  cache->update(process_);
  EXPECT_TRUE(cache->find(address(0, 100)));
  EXPECT_FALSE(cache->find(address(4, 100)));
  EXPECT_TRUE(cache->find(address(8, 100)));
  EXPECT_FALSE(cache->find(address(12, 100)));
  EXPECT_TRUE(cache->find(address(16, 4000)));
  EXPECT_EQ(cache->left_out(), 0u);
}

TEST_F(HotspotCache, ASizeThatNoStructureHasIsNotBelieved) {
  for (const uint64_t size : {uint64_t{4096}, uint64_t{1} << 40, UINT64_MAX}) {
    sizes[0].size = size;
    EXPECT_FALSE(read()) << size;
  }
}

TEST_F(HotspotCache, SegmentsTooSmallOrTooLarge) {
  make_heap(1u << 20);
  put_method(0, 4, 64, 256);
  auto cache = read();
  ASSERT_TRUE(cache);
  for (const int log2 : {-1, 0, 4, 5, 11, 64}) {
    fake_heap.log2 = log2;
    cache->update(process_);
    EXPECT_FALSE(cache->find(address(0, 100))) << log2;
    EXPECT_EQ(cache->left_out(), 1u) << log2;
  }
}

TEST_F(HotspotCache, FreeBlocksCountToo) {
  const size_t blocks = CodeCache::kMaxBlocks + 8;
  make_heap(blocks * kSegment);
  for (size_t i = 0; i < blocks; ++i) put_block(i, 1, false);
  put_method(blocks - 4, 4, 64, 256);
  auto cache = read();
  ASSERT_TRUE(cache);
  cache->update(process_);
  EXPECT_FALSE(cache->find(address(blocks - 4, 100)));
  EXPECT_EQ(cache->left_out(), 1u);
}

TEST_F(HotspotCache, CodeThatOneUpdateLeavesOutComesWithTheNext) {
  constexpr size_t kBlock = 2u << 20, kSegments = kBlock / kSegment, kFit = CodeCache::kMaxCode >> 20;
  make_heap((kFit + 2) * kBlock);
  for (size_t i = 0; i < kFit + 2; ++i) put_method(i * kSegments, kSegments, 64, 64 + (1u << 20));
  auto cache = read();
  ASSERT_TRUE(cache);
  cache->update(process_);
  EXPECT_EQ(cache->left_out(), 2u);
  EXPECT_TRUE(cache->find(address((kFit - 1) * kSegments, 100)));
  EXPECT_FALSE(cache->find(address(kFit * kSegments, 100)));
  cache->update(process_);
  EXPECT_EQ(cache->left_out(), 0u);
  EXPECT_TRUE(cache->find(address((kFit + 1) * kSegments, 100)));
}

}  // namespace
}  // namespace looptrace::hotspot
