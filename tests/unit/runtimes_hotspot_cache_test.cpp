// SPDX-License-Identifier: Apache-2.0
// A code cache as a hostile process may have it: in this process, told of by tables that this program exports
// as libjvm.so does.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "runtimes/hotspot/code_cache.h"
#include "runtimes/hotspot/debug_info.h"
#include "runtimes/hotspot/vm_structs.h"
#include "stacks/elf_object.h"
#include "stacks/module.h"

namespace {

constexpr uint64_t kHeader = 16;

struct FieldEntry {
  const char *type, *field;
  uint64_t is_static, offset;
  const void* address;
  const char* type_string = nullptr;
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
  int32_t compile_id, calls, calls_end, metadata;
  const uint8_t* scopes;
};
// As in JDK 25 and later.
struct FakeNewBlob {
  const char* name;
  int32_t frame_words, begin, end;
  int16_t frame_complete;
  uint64_t method;
  int32_t compile_id, relocations, calls, scopes;
  const uint8_t *immutable_data, *mutable_data;
};
struct FakeCall {
  int32_t offset, scope;
};

FakeHeap fake_heap;
FakeHeap* fake_heaps[] = {&fake_heap};
FakeArray fake_array{1, fake_heaps};
FakeArray* fake_array_at = &fake_array;
const uint8_t *fake_low, *fake_high;

FieldEntry old_fields[] = {
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
    {"HeapBlock::Header", "_length", 0, 0, nullptr, "size_t"},
    {"HeapBlock::Header", "_used", 0, 8, nullptr},
    {"CodeBlob", "_name", 0, offsetof(FakeBlob, name), nullptr},
    {"CodeBlob", "_frame_size", 0, offsetof(FakeBlob, frame_words), nullptr},
    {"CodeBlob", "_frame_complete_offset", 0, offsetof(FakeBlob, frame_complete), nullptr, "int"},
    {"CodeBlob", "_code_begin", 0, offsetof(FakeBlob, begin), nullptr},
    {"CodeBlob", "_code_end", 0, offsetof(FakeBlob, end), nullptr},
    {"CompiledMethod", "_method", 0, offsetof(FakeBlob, method), nullptr},
    {"nmethod", "_compile_id", 0, offsetof(FakeBlob, compile_id), nullptr},
    {"nmethod", "_scopes_pcs_offset", 0, offsetof(FakeBlob, calls), nullptr, "int"},
    {"nmethod", "_dependencies_offset", 0, offsetof(FakeBlob, calls_end), nullptr, "int"},
    {"nmethod", "_metadata_offset", 0, offsetof(FakeBlob, metadata), nullptr, "int"},
    {"CompiledMethod", "_scopes_data_begin", 0, offsetof(FakeBlob, scopes), nullptr},
    {"PcDesc", "_pc_offset", 0, offsetof(FakeCall, offset), nullptr, "int"},
    {"PcDesc", "_scope_decode_offset", 0, offsetof(FakeCall, scope), nullptr, "int"},
    {nullptr, nullptr, 0, 0, nullptr},
};
FieldEntry new_fields[] = {
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
    {"HeapBlock::Header", "_length", 0, 0, nullptr, "uint32_t"},
    {"HeapBlock::Header", "_used", 0, 4, nullptr},
    {"CodeBlob", "_name", 0, offsetof(FakeNewBlob, name), nullptr},
    {"CodeBlob", "_frame_size", 0, offsetof(FakeNewBlob, frame_words), nullptr},
    {"CodeBlob", "_frame_complete_offset", 0, offsetof(FakeNewBlob, frame_complete), nullptr, "int16_t"},
    {"CodeBlob", "_code_offset", 0, offsetof(FakeNewBlob, begin), nullptr},
    {"CodeBlob", "_data_offset", 0, offsetof(FakeNewBlob, end), nullptr},
    {"CodeBlob", "_relocation_size", 0, offsetof(FakeNewBlob, relocations), nullptr, "int"},
    {"CodeBlob", "_mutable_data", 0, offsetof(FakeNewBlob, mutable_data), nullptr},
    {"nmethod", "_method", 0, offsetof(FakeNewBlob, method), nullptr},
    {"nmethod", "_compile_id", 0, offsetof(FakeNewBlob, compile_id), nullptr},
    {"nmethod", "_scopes_pcs_offset", 0, offsetof(FakeNewBlob, calls), nullptr, "int"},
    {"nmethod", "_scopes_data_offset", 0, offsetof(FakeNewBlob, scopes), nullptr, "int"},
    {"nmethod", "_immutable_data", 0, offsetof(FakeNewBlob, immutable_data), nullptr},
    {"PcDesc", "_pc_offset", 0, offsetof(FakeCall, offset), nullptr, "int"},
    {"PcDesc", "_scope_decode_offset", 0, offsetof(FakeCall, scope), nullptr, "int"},
    {nullptr, nullptr, 0, 0, nullptr},
};
TypeEntry sizes[] = {{"HeapBlock", kHeader}, {"PcDesc", sizeof(FakeCall)}, {nullptr, 0}};

}  // namespace

extern "C" {
#define EXPORTED __attribute__((used, visibility("default")))
EXPORTED const void* gHotSpotVMStructs = old_fields;
EXPORTED const void* gHotSpotVMTypes = sizes;
EXPORTED uint64_t gHotSpotVMStructEntryTypeNameOffset = offsetof(FieldEntry, type);
EXPORTED uint64_t gHotSpotVMStructEntryFieldNameOffset = offsetof(FieldEntry, field);
EXPORTED uint64_t gHotSpotVMStructEntryTypeStringOffset = offsetof(FieldEntry, type_string);
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

  void SetUp() override {
    sizes[0].size = kHeader;
    gHotSpotVMStructs = old_fields;
  }
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
    const FakeBlob blob{"nmethod", 4, 0, block + begin, block + end, 1, 0, 0, 0, 0, nullptr};
    std::memcpy(block + kHeader, &blob, sizeof blob);
  }

  uint64_t address(size_t segment, size_t offset) const {
    return reinterpret_cast<uint64_t>(memory_ + segment * kSegment + offset);
  }

  std::optional<VmStructs> structs() const {
    ObjectCache objects;
    const auto modules = ProcessModules::load(getpid(), objects);
    const Module* self = modules ? modules->find(reinterpret_cast<uint64_t>(&VmStructs::read)) : nullptr;
    if (!self || !self->object) return std::nullopt;
    auto types = CodeCache::types();
    for (const auto type : DebugInfo::types()) types.push_back(type);
    return VmStructs::read(process_, *self->object, self->bias, types);
  }

  std::optional<CodeCache> read() const {
    const auto structs = this->structs();
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

TEST_F(HotspotCache, AsJdk25LaysItOut) {
  gHotSpotVMStructs = new_fields;
  sizes[0].size = 8;
  make_heap(1u << 20);
  const auto put = [&](size_t segment, uint32_t segments, const FakeNewBlob& blob) {
    uint8_t* const at = memory_ + segment * kSegment;
    std::memcpy(at, &segments, sizeof segments);
    at[4] = 1;
    std::memcpy(at + 8, &blob, sizeof blob);
  };
  FakeNewBlob blob{"nmethod", 4, 100, 200, -1, 1, 7, 0, 0, 0, nullptr, nullptr};
  put(0, 4, blob);
  blob.end = 300;  // into the next block
  put(4, 4, blob);
  blob.end = -1;
  put(8, (size_ / kSegment) - 8, blob);
  auto cache = read();
  ASSERT_TRUE(cache);
  cache->update(process_);
  const CodeBlob* found = cache->find(address(0, 8 + 100));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->end, address(0, 8 + 200));
  EXPECT_EQ(found->frame_complete, -1);
  EXPECT_EQ(found->compile_id, 7u);
  EXPECT_TRUE(cache->still_holds(process_, *found));
  memory_[8 + offsetof(FakeNewBlob, compile_id)] = 8;
  EXPECT_FALSE(cache->still_holds(process_, *found)) << "another that was compiled for the same place";
  EXPECT_FALSE(cache->find(address(4, 8 + 100)));
  EXPECT_FALSE(cache->find(address(8, 8 + 100)));
}

TEST_F(HotspotCache, ANumberOfAnUnknownTypeIsNotBelieved) {
  for (FieldEntry& field : old_fields) {
    if (!field.type_string || std::string(field.field) != "_length") continue;
    field.type_string = "jlong long";
    EXPECT_FALSE(read());
    field.type_string = "size_t";
    EXPECT_TRUE(read());
  }
}

// One compiled method and what is noted of its calls, as JDK 11 to 22 and as JDK 25 keep it.
class HotspotDebugInfo : public HotspotCache, public testing::WithParamInterface<bool> {
 protected:
  static constexpr uint64_t kOuter = 0x1000, kInner = 0x2000, kInnermost = 0x3000;

  void SetUp() override {
    HotspotCache::SetUp();
    if (is_new()) gHotSpotVMStructs = new_fields;
    blob_.start = 0x10000;
    blob_.end = 0x11000;
    blob_.method = kOuter;
    if (is_new()) {
      auto& blob = *new (object_) FakeNewBlob{};
      blob.relocations = offsetof(Data, metadata) - offsetof(Data, scopes);
      blob.calls = offsetof(Data, calls);
      blob.scopes = offsetof(Data, scopes);
      blob.immutable_data = reinterpret_cast<const uint8_t*>(&data_);
      blob.mutable_data = data_.scopes;
    } else {
      auto& blob = *new (object_) FakeBlob{};
      const auto far = static_cast<int32_t>(reinterpret_cast<uint8_t*>(&data_) - object_);
      blob.calls = far + static_cast<int32_t>(offsetof(Data, calls));
      blob.calls_end = far + static_cast<int32_t>(offsetof(Data, scopes));
      blob.metadata = far + static_cast<int32_t>(offsetof(Data, metadata));
      blob.scopes = data_.scopes;
    }
    blob_.address = reinterpret_cast<uint64_t>(object_);
    put_scope(8, 0, 1, 10);
    put_scope(16, 8, 2, 20);
    put_scope(24, 16, 3, 30);
    const auto structs = this->structs();
    ASSERT_TRUE(structs);
    info_ = DebugInfo::of(*structs, is_new() ? 25 : 17);
    ASSERT_TRUE(info_);
  }

  bool is_new() const { return GetParam(); }

  // Small enough for numbers of one byte.
  void put_scope(size_t at, uint8_t caller, uint8_t method, uint8_t bytecode) {
    const uint8_t lowest = is_new() ? 1 : 0;
    for (const uint8_t value : {caller, method, static_cast<uint8_t>(bytecode + 1)})
      data_.scopes[at++] = value + lowest;
  }

  std::vector<Place> call(uint64_t offset) const {
    return info_->call(process_, blob_, blob_.start + offset);
  }

  alignas(8) uint8_t object_[256] = {};
  struct Data {  // behind it: distances are positive
    FakeCall calls[5] = {{-1, 0}, {0x20, 8}, {0x40, 24}, {0x60, 0}, {INT32_MAX, 0}};
    uint8_t scopes[64] = {};
    uint64_t metadata[3] = {kOuter, kInner, kInnermost};
  } data_;
  CodeBlob blob_;
  std::optional<DebugInfo> info_;
};

INSTANTIATE_TEST_SUITE_P(Layouts, HotspotDebugInfo, testing::Bool(),
                         [](const auto& info) { return info.param ? "Jdk25" : "Jdk17"; });

TEST_P(HotspotDebugInfo, TellsWhereACallIs) {
  EXPECT_EQ(call(0x20), (std::vector<Place>{{kOuter, 10}}));
  EXPECT_EQ(call(0x40), (std::vector<Place>{{kInnermost, 30}, {kInner, 20}, {kOuter, 10}}));
  EXPECT_TRUE(call(0x21).empty()) << "no call";
  EXPECT_TRUE(call(0x60).empty()) << "nothing is noted";
  EXPECT_TRUE(call(0).empty());
  EXPECT_TRUE(call(0x2000).empty()) << "not in it";
}

TEST_P(HotspotDebugInfo, WhatCannotBeIsNotBelieved) {
  put_scope(8, 0, 2, 10);
  EXPECT_TRUE(call(0x20).empty()) << "of another method";
  put_scope(8, 8, 1, 10);
  EXPECT_TRUE(call(0x20).empty()) << "in itself";
  put_scope(8, 24, 1, 10);
  EXPECT_TRUE(call(0x40).empty()) << "in a circle";
  put_scope(8, 0, 0, 10);
  EXPECT_TRUE(call(0x20).empty()) << "of no method";
}

TEST_P(HotspotDebugInfo, HostileBytes) {
  std::mt19937 random(3);
  for (int i = 0; i < 3000; ++i) {
    for (uint8_t& byte : data_.scopes) byte = static_cast<uint8_t>(random() % (i % 2 ? 32 : 256));
    for (FakeCall& entry : data_.calls) {
      if (random() % 4 == 0)
        entry = {static_cast<int32_t>(random() % 0x60), static_cast<int32_t>(random() % 80)};
    }
    if (i % 8 == 0) object_[random() % sizeof object_] = static_cast<uint8_t>(random());
    const auto places = call(random() % 0x61);
    EXPECT_LE(places.size(), DebugInfo::kMaxDepth);
    if (!places.empty()) {
      EXPECT_EQ(places.back().method, kOuter);
    }
  }
}

}  // namespace
}  // namespace looptrace::hotspot
