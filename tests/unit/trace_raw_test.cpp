// SPDX-License-Identifier: Apache-2.0
// Records of the ring as bytes: whole ones are decoded, and no bytes whatever make it read outside of them.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>

#include "trace/raw.h"

namespace looptrace {
namespace {

std::vector<std::byte> capture_bytes(uint32_t kernel, uint32_t user, uint32_t python) {
  const size_t words = kernel + user + 3 * python;
  std::vector<std::byte> bytes(sizeof(lt_capture_head) + words * 8);
  lt_capture_head head{};
  head.hdr.kind = LT_REC_CAPTURE;
  head.hdr.size = static_cast<uint32_t>(bytes.size());
  head.nkernel = kernel;
  head.nuser = user;
  head.npy = python;
  std::memcpy(bytes.data(), &head, sizeof(lt_capture_head));
  for (size_t i = 0; i < words; ++i) {
    const uint64_t word = 0x100 + i;
    std::memcpy(bytes.data() + sizeof(lt_capture_head) + i * 8, &word, 8);
  }
  return bytes;
}

TEST(Raw, ACaptureIsTakenApart) {
  const auto c = decode_capture(capture_bytes(2, 3, 2));
  ASSERT_TRUE(c);
  EXPECT_EQ(c->kernel, (std::vector<uint64_t>{0x100, 0x101}));
  EXPECT_EQ(c->user, (std::vector<uint64_t>{0x102, 0x103, 0x104}));
  ASSERT_EQ(c->python.size(), 2u);
  EXPECT_EQ(c->python[1].code, 0x108u);
  EXPECT_EQ(c->python[1].instr, 0x109u);
  EXPECT_EQ(c->python[1].firstlineno, 0x10au);
}

TEST(Raw, JavaScriptFramesComeLast) {
  auto bytes = capture_bytes(1, 2, 1);
  const lt_v8_frame frames[] = {{0, 0, 11, 12, 13, 14}, {1, 0, 21, 22, 23, 24}};
  const auto* raw = reinterpret_cast<const std::byte*>(frames);
  bytes.insert(bytes.end(), raw, raw + sizeof frames);
  const auto size = static_cast<uint32_t>(bytes.size());
  const uint32_t count = 2;
  std::memcpy(bytes.data() + offsetof(lt_hdr, size), &size, sizeof size);
  std::memcpy(bytes.data() + offsetof(lt_capture_head, nv8), &count, sizeof count);
  auto c = decode_capture(bytes);
  ASSERT_TRUE(c);
  ASSERT_EQ(c->v8.size(), 2u);
  EXPECT_EQ(c->v8[1].user, 1u);
  EXPECT_EQ(c->v8[1].shared, 21u);
  EXPECT_EQ(c->v8[1].offset, 24u);
  EXPECT_EQ(c->python[0].code, 0x103u);

  for (const uint32_t wrong : {uint32_t{3}, uint32_t{LT_MAX_V8 + 1}, UINT32_MAX, uint32_t{0x06666667}}) {
    std::memcpy(bytes.data() + offsetof(lt_capture_head, nv8), &wrong, sizeof wrong);
    EXPECT_FALSE(decode_capture(bytes)) << wrong;
  }
}

TEST(Raw, InterpretedFramesAreToldApartByWhatTheyRun) {
  auto a = *decode_capture(capture_bytes(1, 2, 0));
  a.v8 = {{1, 0, 11, 12, 13, 14}};
  const auto frame = [](int line) {
    Frame f;
    f.function = "f";
    f.line = line;
    return NamedFrame{1, std::make_shared<const Frame>(f)};
  };
  a.javascript = {frame(7)};
  auto b = a;
  b.javascript = {frame(7)};
  EXPECT_TRUE(a.same_stack(b));
  b.javascript = {frame(8)};
  EXPECT_FALSE(a.same_stack(b));
  b.javascript = {};
  EXPECT_FALSE(a.same_stack(b));
  b.javascript = {frame(7), frame(9)};  // one inlined into the other
  EXPECT_FALSE(a.same_stack(b));
}

TEST(Raw, CountsThatDoNotFitTheSizeAreRefused) {
  for (const size_t field : {offsetof(lt_capture_head, nkernel), offsetof(lt_capture_head, nuser),
                             offsetof(lt_capture_head, npy)}) {
    for (const uint32_t wrong : {uint32_t{4}, uint32_t{LT_MAX_USER + 1}, UINT32_MAX, uint32_t{0x55555556}}) {
      auto bytes = capture_bytes(1, 1, 1);
      std::memcpy(bytes.data() + field, &wrong, 4);
      EXPECT_FALSE(decode_capture(bytes)) << field << " " << wrong;
    }
  }
  auto bytes = capture_bytes(1, 1, 1);
  bytes.pop_back();
  EXPECT_FALSE(decode_capture(bytes)) << "shorter than it says";
  EXPECT_FALSE(decode_capture({}));
}

TEST(Raw, ARecordOfFixedSizeIsTakenOnlyWhole) {
  lt_loop_event e{};
  e.hdr.kind = LT_REC_LOOP_GONE;
  e.hdr.size = sizeof e;
  const std::span bytes(reinterpret_cast<const std::byte*>(&e), sizeof e);
  EXPECT_TRUE(record_as<lt_loop_event>(bytes, LT_REC_LOOP_GONE));
  EXPECT_FALSE(record_as<lt_loop_event>(bytes, LT_REC_LOOP_FOUND));
  EXPECT_FALSE(record_as<lt_loop_event>(bytes.first(sizeof e - 1), LT_REC_LOOP_GONE));
  lt_loop_event lying = e;
  lying.hdr.size = sizeof(lt_hdr);
  const std::span lie(reinterpret_cast<const std::byte*>(&lying), sizeof lying);
  EXPECT_FALSE(record_as<lt_loop_event>(lie, LT_REC_LOOP_GONE)) << "it says it is only a header";
}

TEST(Raw, HostileBytesNeverReadOutside) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 200'000; ++round) {
    // On the heap and exact, so that a sanitizer sees a step too far.
    const size_t size = random() % 512;
    const std::unique_ptr<std::byte[]> bytes(new std::byte[size + 8]);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(random() % 4 ? 0 : random());
    if (size >= sizeof(lt_hdr) && round % 2) {
      lt_hdr hdr{};
      hdr.kind = LT_REC_CAPTURE;
      hdr.size = static_cast<uint32_t>(random() % 3 ? size : random());
      std::memcpy(bytes.get(), &hdr, sizeof hdr);
    }
    const std::span<const std::byte> span(bytes.get(), size);
    if (const auto c = decode_capture(span)) {
      EXPECT_LE((c->kernel.size() + c->user.size() + 3 * c->python.size()) * 8 + sizeof(lt_capture_head),
                size);
    }
    (void)record_as<lt_stall>(span, LT_REC_STALL);
    (void)record_as<lt_path>(span, LT_REC_PATH);
  }
}

TEST(Raw, TheSameStackIsTheSameInAllItsParts) {
  auto a = *decode_capture(capture_bytes(1, 2, 1)), b = a;
  EXPECT_TRUE(a.same_stack(b));
  b.python[0].instr++;
  EXPECT_FALSE(a.same_stack(b));
  b = a;
  b.user.pop_back();
  EXPECT_FALSE(a.same_stack(b));
}

}  // namespace
}  // namespace looptrace
