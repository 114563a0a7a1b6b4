// SPDX-License-Identifier: Apache-2.0
#include "runtimes/hotspot/debug_info.h"

#include <algorithm>
#include <array>
#include <span>

namespace looptrace::hotspot {
namespace {

constexpr uint64_t kMaxCalls = 1u << 20;     // in one nmethod
constexpr uint32_t kMaxMetadata = 1u << 20;  // the same
constexpr size_t kScope = 3 * 5;             // bytes of the numbers that are read of a ScopeDesc, at most

}  // namespace

std::vector<std::string_view> DebugInfo::types() {
  return {"PcDesc", "nmethod", "CompiledMethod", "CodeBlob"};
}

std::optional<DebugInfo> DebugInfo::of(const VmStructs& structs, int major) {
  DebugInfo info;
  NeededFields need(structs);
  info.pc_size_ = structs.size("PcDesc").value_or(0);
  info.pc_offset_ = need("PcDesc", "_pc_offset");
  info.pc_scope_ = need("PcDesc", "_scope_decode_offset");
  info.calls_ = need("nmethod", "_scopes_pcs_offset");
  info.apart_ = structs.offset("nmethod", "_immutable_data").has_value();
  if (info.apart_) {
    info.immutable_ = need("nmethod", "_immutable_data");
    info.mutable_ = need("CodeBlob", "_mutable_data");
    info.metadata_ = need("CodeBlob", "_relocation_size");
    info.calls_end_ = info.scopes_ = need("nmethod", "_scopes_data_offset");
  } else {
    info.metadata_ = need("nmethod", "_metadata_offset");
    info.calls_end_ = need("nmethod", "_dependencies_offset");
    info.scopes_by_address_ = structs.offset("CompiledMethod", "_scopes_data_begin").has_value();
    info.scopes_ = info.scopes_by_address_ ? need("CompiledMethod", "_scopes_data_begin")
                                           : need("nmethod", "_scopes_data_offset");
  }
  info.numbers_ = Unsigned5::of(major);
  if (!need.all_found() || info.pc_size_ < sizeof(int32_t)) return std::nullopt;
  return info;
}

DebugInfo::Tables DebugInfo::tables(const RemoteMemory& memory, uint64_t nmethod) const {
  const auto number = [&](uint64_t at) { return memory.get<uint32_t>(nmethod + at).value_or(0); };
  const uint64_t base = apart_ ? memory.pointer(nmethod + immutable_) : nmethod;
  Tables tables;
  tables.calls = base + number(calls_);
  tables.calls_end = base + number(calls_end_);
  tables.scopes = scopes_by_address_ ? memory.pointer(nmethod + scopes_) : base + number(scopes_);
  tables.metadata = (apart_ ? memory.pointer(nmethod + mutable_) : nmethod) + number(metadata_);
  return tables;
}

uint32_t DebugInfo::find(const RemoteMemory& memory, const Tables& tables, int offset) const {
  if (tables.calls_end < tables.calls) return 0;
  uint64_t first = 0, last = std::min((tables.calls_end - tables.calls) / pc_size_, kMaxCalls);
  while (first < last) {
    const uint64_t middle = first + (last - first) / 2, at = tables.calls + middle * pc_size_;
    const auto found = memory.get<int32_t>(at + pc_offset_);
    if (!found) return 0;
    if (*found == offset) return memory.get<uint32_t>(at + pc_scope_).value_or(0);
    if (*found < offset)
      first = middle + 1;
    else
      last = middle;
  }
  return 0;
}

std::vector<Place> DebugInfo::call(const RemoteMemory& memory, const CodeBlob& blob, uint64_t address) const {
  if (!blob.method || address <= blob.start || address > blob.end) return {};
  const Tables tables = this->tables(memory, blob.address);
  std::vector<Place> places;
  for (uint32_t scope = find(memory, tables, static_cast<int>(address - blob.start)); scope;) {
    std::array<uint8_t, kScope> bytes;
    std::span<const uint8_t> rest(bytes.data(),
                                  memory.read_some(tables.scopes + scope, bytes.data(), bytes.size()));
    const auto caller = numbers_.take(rest), method = numbers_.take(rest), bytecode = numbers_.take(rest);
    // Callers are noted before what was inlined into them.
    if (!caller || !method || !bytecode || *caller >= scope || *method == 0 || *method > kMaxMetadata ||
        places.size() == kMaxDepth)
      return {};
    places.push_back(
        {memory.pointer(tables.metadata + 8 * uint64_t{*method - 1}), static_cast<int>(*bytecode) - 1});
    scope = *caller;
  }
  // Torn, or laid out otherwise than the tables say: then it is not this method's.
  if (!places.empty() && places.back().method != blob.method) return {};
  return places;
}

}  // namespace looptrace::hotspot
