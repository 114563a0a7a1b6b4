// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/bytecodes.h"

namespace looptrace::v8 {
namespace {

// The first bytecodes of all versions: prefixes for operands of two and of four bytes, for the debugger too.
constexpr uint8_t kWide = 0, kExtraWide = 1, kDebugBreakWide = 2, kDebugBreakExtraWide = 3;
constexpr size_t kMaxBytecodes = 256;

}  // namespace

BytecodeSizes::BytecodeSizes(std::span<const uint8_t> sizes) {
  const size_t count = sizes.size() / sizes_.size();
  if (count == 0 || count > kMaxBytecodes || sizes.size() % sizes_.size() != 0) return;
  for (size_t width = 0; width < sizes_.size(); ++width) {
    const auto part = sizes.subspan(width * count, count);
    sizes_[width].assign(part.begin(), part.end());
  }
}

BytecodeSizes BytecodeSizes::of(ElfObject& node) {
  const auto symbol = node.find_by_name("_ZN2v88internal11interpreter9Bytecodes14kBytecodeSizesE");
  if (!symbol || symbol->size == 0 || symbol->size > 3 * kMaxBytecodes) return {};
  std::vector<uint8_t> sizes(symbol->size);
  if (!node.read(symbol->start, sizes.data(), sizes.size())) return {};
  return BytecodeSizes(sizes);
}

void BytecodeSizes::walk(std::span<const uint8_t> code,
                         const std::function<bool(int offset, uint8_t opcode)>& visit) const {
  for (size_t at = 0; at < code.size();) {
    size_t width = 0, prefix = 0;
    if (code[at] == kWide || code[at] == kDebugBreakWide) width = prefix = 1;
    if (code[at] == kExtraWide || code[at] == kDebugBreakExtraWide) width = 2, prefix = 1;
    if (at + prefix >= code.size()) return;
    const uint8_t opcode = code[at + prefix];
    if (opcode >= sizes_[width].size() || sizes_[width][opcode] == 0) return;
    if (!visit(static_cast<int>(at), opcode)) return;
    at += prefix + sizes_[width][opcode];
  }
}

}  // namespace looptrace::v8
