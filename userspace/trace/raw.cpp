// SPDX-License-Identifier: Apache-2.0
#include "trace/raw.h"

#include <cstring>

namespace looptrace {

bool RawCapture::same_python(const RawCapture& other) const {
  if (python.size() != other.python.size()) return false;
  for (size_t i = 0; i < python.size(); ++i) {
    if (python[i].instr != other.python[i].instr || !is_same_code(python[i], other.python[i])) return false;
  }
  return true;
}

std::string comm_text(const char (&comm)[LT_COMM_LEN]) {
  return std::string(comm, strnlen(comm, LT_COMM_LEN));
}

// Addresses tell interpreted frames' functions apart as little as their lines.
bool RawCapture::same_javascript(const RawCapture& other) const {
  if (javascript.size() != other.javascript.size()) return false;
  for (size_t i = 0; i < javascript.size(); ++i) {
    if (javascript[i].user != other.javascript[i].user) return false;
    const Frame &a = *javascript[i].frame, &b = *other.javascript[i].frame;
    if (&a != &b && (a.line != b.line || a.function != b.function || a.file != b.file)) return false;
  }
  return true;
}

const lt_hdr* record_header(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(lt_hdr)) return nullptr;
  const auto* hdr = reinterpret_cast<const lt_hdr*>(bytes.data());
  return hdr->size <= bytes.size() && hdr->size >= sizeof(lt_hdr) ? hdr : nullptr;
}

std::optional<RawCapture> decode_capture(std::span<const std::byte> bytes) {
  const lt_hdr* hdr = record_header(bytes);
  constexpr size_t head = sizeof(lt_capture_head);
  if (!hdr || hdr->kind != LT_REC_CAPTURE || hdr->size < head) return std::nullopt;
  RawCapture c;
  std::memcpy(&c.head, bytes.data(), head);
  const lt_capture_head& h = c.head;
  if (h.nkernel > LT_MAX_KERNEL || h.nuser > LT_MAX_USER || h.npy > LT_MAX_PY || h.nv8 > LT_MAX_V8)
    return std::nullopt;
  const size_t words = h.nkernel + h.nuser + 3 * h.npy;
  if (words * sizeof(uint64_t) + h.nv8 * sizeof(lt_v8_frame) > hdr->size - head) return std::nullopt;
  const std::byte* at = bytes.data() + head;
  const auto take = [&](std::vector<uint64_t>& into, size_t n) {
    if (n == 0) return;  // memcpy must not be handed an empty vector's null
    into.resize(n);
    std::memcpy(into.data(), at, n * sizeof(uint64_t));
    at += n * sizeof(uint64_t);
  };
  take(c.kernel, h.nkernel);
  take(c.user, h.nuser);
  c.python.resize(h.npy);
  for (lt_py_frame& f : c.python) {
    uint64_t word[3];
    std::memcpy(word, at, sizeof word);
    at += sizeof word;
    f = {word[0], word[1], static_cast<uint32_t>(word[2]), static_cast<uint16_t>(word[2] >> 32),
         static_cast<uint16_t>(word[2] >> 48)};
  }
  if (h.nv8) {
    c.v8.resize(h.nv8);
    std::memcpy(c.v8.data(), at, h.nv8 * sizeof(lt_v8_frame));
  }
  return c;
}

}  // namespace looptrace
