// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/handlers.h"

#include <algorithm>

namespace looptrace::v8 {
namespace {

constexpr size_t kOpcodes = 256, kWidths = 3;
// V8's builtins take 1.5 to 3 MiB, its largest handler less than 8 KiB.
constexpr uint64_t kBuiltins = 8u << 20;
constexpr uint64_t kLargestHandler = 32u << 10;
constexpr size_t kFewestHandlers = 128;  // there are 180 to 210 bytecodes, the rest is null

}  // namespace

void Handlers::learn(const RemoteMemory& memory, uint64_t table, uint64_t pc) {
  if (!table_.empty() || table % 8 != 0) return;
  std::vector<uint64_t> entries(kOpcodes * kWidths);
  if (!memory.read(table, entries.data(), entries.size() * 8)) return;
  std::vector<uint64_t> starts;
  for (const uint64_t entry : entries) {
    if (!entry) continue;
    if ((entry > pc ? entry - pc : pc - entry) > kBuiltins) return;
    starts.push_back(entry);
  }
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  if (starts.size() < kFewestHandlers) return;
  table_ = std::move(entries);
  starts_ = std::move(starts);
}

bool Handlers::runs(uint8_t opcode, uint64_t pc) const {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), pc);
  if (after == starts_.begin()) return false;
  const uint64_t start = *(after - 1);
  if (pc - start > kLargestHandler) return false;
  for (size_t width = 0; width < kWidths; ++width) {
    if (table_[width * kOpcodes + opcode] == start) return true;
  }
  return false;
}

}  // namespace looptrace::v8
