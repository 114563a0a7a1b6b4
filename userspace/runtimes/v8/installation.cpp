// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/installation.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "runtimes/remote_memory.h"
#include "stacks/elf_object.h"

namespace looptrace::v8 {
namespace {

// A std::string of libstdc++ or libc++'s old layout: where its characters are, and how many.
std::string read_std_string(const RemoteMemory& memory, uint64_t address) {
  std::array<uint64_t, 2> head{};
  std::array<char, 48> text{};
  if (!memory.read(address, head.data(), sizeof head) || head[1] == 0 || head[1] >= text.size()) return {};
  if (!memory.read(head[0], text.data(), head[1])) return {};
  return {text.data(), head[1]};
}

bool looks_like_version(std::string_view text) {
  const size_t dots = static_cast<size_t>(std::count(text.begin(), text.end(), '.'));
  return dots >= 2 && text[0] >= '0' && text[0] <= '9' &&
         text.find_first_not_of("0123456789.-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") ==
             std::string_view::npos;
}

Error unsupported(const std::string& what) {
  return {what + ": JavaScript frames of this process stay native (known are Node.js 18, 20, 22, 24 and 26)",
          0, Fault::unsupported};
}

// process.versions: node::per_process::metadata begins with it, and it with those of Node.js and V8.
Result<Installation> examine(pid_t pid, const Module& module) {
  constexpr uint64_t kStdString = 32;
  ElfObject& node = *module.object;
  const RemoteMemory memory(pid);
  const auto metadata = node.find_by_name("_ZN4node11per_process8metadataE");
  if (!metadata || !metadata->start) return unsupported("A V8 without Node.js in " + node.name());
  Installation found;
  found.version = read_std_string(memory, metadata->start + module.bias);
  found.v8_version = read_std_string(memory, metadata->start + module.bias + kStdString);
  if (!looks_like_version(found.version) || !looks_like_version(found.v8_version)) {
    return unsupported("A Node.js without a version in " + node.name());
  }
  const auto layout = read_layout(node, found.v8_version);
  if (!layout) return unsupported("Node.js " + found.version + " (" + layout.error().what + ")");
  found.layout = *layout;
  found.module = node.name();
  found.object = module.object;
  return found;
}

}  // namespace

Result<std::optional<Installation>> find_installation(pid_t pid, const ProcessModules& modules) {
  for (const Module& module : modules.all()) {
    if (!module.object) continue;
    if (!module.object->is_main_program() && !module.object->name().starts_with("libnode.so")) continue;
    const auto mark = module.object->find_by_name("v8dbg_type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE");
    if (!mark) continue;
    auto found = examine(pid, module);
    if (!found) return found.error();
    return std::optional<Installation>(std::move(*found));
  }
  return std::optional<Installation>();
}

}  // namespace looptrace::v8
