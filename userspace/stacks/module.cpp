// SPDX-License-Identifier: Apache-2.0
#include "stacks/module.h"

#include <algorithm>

#include "base/files.h"
#include "stacks/elf_object.h"
#include "stacks/proc_maps.h"

namespace looptrace {
namespace {

// vm.max_map_count is 65530 by default; lines have at most PATH_MAX bytes and some.
constexpr size_t kMaxMaps = 64u << 20;

}  // namespace

Result<ProcessModules> ProcessModules::load(pid_t pid, ObjectCache& cache) {
  const auto text = read_file("/proc/" + std::to_string(pid) + "/maps", kMaxMaps);
  if (!text) return text.error();
  ProcessModules modules;
  for (const std::string_view line : split(*text, '\n')) {
    auto map = parse_maps_line(line);
    if (!map || !map->executable) continue;
    if (map->path == "[vsyscall]") continue;
    Module module;
    module.start = map->start;
    module.end = map->end;
    if (map->path == "[vdso]") {
      module.path = map->path;
      if (auto object = cache.open_vdso(pid, map->start, map->end)) module.object = std::move(*object);
    } else if (map->inode != 0) {
      module.path = map->path;
      // A file that cannot be read is a module without an object: data, not an error.
      if (auto object = cache.open(pid, map_files_name(map->start, map->end), map->path))
        module.object = std::move(*object);
    }
    if (module.object) {
      if (const auto bias = module.object->bias(module.start, map->offset))
        module.bias = *bias;
      else
        module.object = nullptr;
    }
    modules.modules_.push_back(std::move(module));
  }
  std::sort(modules.modules_.begin(), modules.modules_.end(),
            [](const Module& a, const Module& b) { return a.start < b.start; });
  cache.trim();
  return modules;
}

const std::vector<lt_row>* Module::rows() const { return object ? &object->rows() : code_rows.get(); }

void ProcessModules::cover(uint64_t low, uint64_t high,
                           const std::shared_ptr<const std::vector<lt_row>>& rows) {
  if (low >= high) return;
  std::erase_if(modules_, [&](const Module& m) { return !m.object && m.start >= low && m.end <= high; });
  const auto after = std::upper_bound(modules_.begin(), modules_.end(), low,
                                      [](uint64_t at, const Module& module) { return at < module.start; });
  Module code;
  code.start = code.bias = low;
  code.end = high;
  code.code_rows = rows;
  modules_.insert(after, std::move(code));
}

const Module* ProcessModules::find(uint64_t address) const {
  const auto after = std::upper_bound(modules_.begin(), modules_.end(), address,
                                      [](uint64_t at, const Module& module) { return at < module.start; });
  if (after == modules_.begin()) return nullptr;
  const Module& module = *(after - 1);
  return address < module.end ? &module : nullptr;
}

}  // namespace looptrace
