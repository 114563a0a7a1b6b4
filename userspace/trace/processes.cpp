// SPDX-License-Identifier: Apache-2.0
#include "trace/processes.h"

#include <algorithm>
#include <set>

#include "stacks/elf_object.h"
#include "targets/container.h"
#include "trace/clock.h"

namespace looptrace {

namespace {

constexpr uint64_t kRefreshNs = 1'000'000'000;

}  // namespace

TracedProcess* ProcessTable::find(uint32_t tgid) {
  const auto it = processes_.find(tgid);
  return it == processes_.end() ? nullptr : &it->second;
}

TracedProcess& ProcessTable::get(uint32_t tgid, uint64_t start_boottime) {
  if (TracedProcess* known = find(tgid)) {
    if (!start_boottime || !known->start_boottime || known->start_boottime == start_boottime) return *known;
    forget(tgid);
  }
  TracedProcess& process = processes_[tgid];
  process.tgid = tgid;
  process.start_boottime = start_boottime;
  if (const auto facts = read_process(procfs_, static_cast<pid_t>(tgid),
                                      kPartExe | kPartCommandLine | kPartCgroups | kPartStatus)) {
    process.info = to_process_info(*facts);
    process.container = to_container_info(container_of(facts->cgroups));
  } else {
    process.info.pid = tgid;
  }
  if (name_service_) process.service = name_service_(process.info, process.container);
  load(process);
  return process;
}

void ProcessTable::prepare(uint32_t tgid) {
  const auto modules = ProcessModules::load(static_cast<pid_t>(tgid), objects_);
  if (!modules) return;
  for (const Module& m : modules->all()) {
    if (m.object) (void)m.object->rows();
  }
}

void ProcessTable::add_tables(TracedProcess& process, const ProcessModules& modules) {
  std::set<Table*> added;
  std::vector<Table*> order;
  std::vector<const std::vector<lt_row>*> rows;
  for (const Module& m : modules.all()) {
    if (!m.object) continue;
    Table& table = tables_[m.object];
    if (table.users || table.file || !added.insert(&table).second) continue;
    order.push_back(&table);
    rows.push_back(&m.object->rows());
  }
  const auto files = engine_.add_rows(rows);
  if (!files) {
    process.warnings.push_back("unwind_table: " + files.error().message());
    return;
  }
  for (size_t i = 0; i < order.size(); ++i) {
    order[i]->file = (*files)[i];
    if (!(*files)[i] && !rows[i]->empty())
      process.warnings.push_back("unwind_table: there is no room for the unwind table of one more file");
  }
}

uint32_t ProcessTable::add_code(TracedProcess& process, const std::vector<lt_row>& rows) {
  const std::vector<lt_row>* const one = &rows;
  const auto files = engine_.add_rows({&one, 1});
  if (files && files->front()) return files->front();
  process.warnings.push_back(
      "unwind_table: " + (files ? "there is no room for that of compiled code" : files.error().message()));
  return 0;
}

void ProcessTable::load(TracedProcess& process) {
  process.loaded_ns = monotonic_ns();
  auto modules = ProcessModules::load(static_cast<pid_t>(process.tgid), objects_);
  if (!modules) return;

  if (!process.runtime) {
    std::optional<std::string> warning;
    process.runtime = detect_runtime(static_cast<pid_t>(process.tgid), *modules, warning);
    if (warning) process.warnings.push_back("runtime_unknown: " + *warning);
    if (process.runtime) process.info.runtime = process.runtime->name();
  }
  const uint32_t old_code = std::exchange(process.code_file, 0);
  process.makes_code = process.runtime && process.runtime->cover(*modules);

  add_tables(process, *modules);
  std::vector<lt_module> table;
  std::set<std::shared_ptr<ElfObject>> used;
  for (const Module& m : modules->all()) {
    lt_module entry{m.start, m.end, m.bias, 0, 0};
    if (m.object) {
      Table& rows = tables_[m.object];
      if (used.insert(m.object).second) ++rows.users;
      entry.file = rows.file;
      entry.rows = rows.file ? static_cast<uint32_t>(m.object->rows().size()) : 0;
    } else if (m.code_rows && !m.code_rows->empty()) {
      if (!process.code_file) process.code_file = add_code(process, *m.code_rows);
      entry.file = process.code_file;
      entry.rows = process.code_file ? static_cast<uint32_t>(m.code_rows->size()) : 0;
    }
    if (table.size() < LT_MAX_MODULES) table.push_back(entry);
  }
  if (modules->all().size() > LT_MAX_MODULES) {
    process.warnings.push_back("modules_full: more than " + std::to_string(LT_MAX_MODULES) +
                               " executable mappings; stacks through the others are cut short");
  }
  if (process.modules) release_tables(*process.modules);
  process.modules = std::move(*modules);

  lt_process config{};
  if (process.runtime) {
    process.runtime->look_at(*process.modules);
    process.runtime->configure(config);
  }
  if (auto r = engine_.set_process(process.tgid, table, config); !r) {
    process.warnings.push_back("unwind_table: " + r.error().message());
  }
  engine_.remove_rows(old_code);
}

void ProcessTable::refresh(TracedProcess& process, uint64_t now_ns) {
  if (now_ns - process.loaded_ns < kRefreshNs) return;
  load(process);
}

void ProcessTable::release_tables(const ProcessModules& modules) {
  std::set<std::shared_ptr<ElfObject>> used;
  for (const Module& m : modules.all()) {
    if (!m.object || !used.insert(m.object).second) continue;
    const auto it = tables_.find(m.object);
    if (it == tables_.end() || --it->second.users) continue;
    engine_.remove_rows(it->second.file);
    tables_.erase(it);
  }
}

void ProcessTable::forget(uint32_t tgid) {
  const auto it = processes_.find(tgid);
  if (it == processes_.end()) return;
  engine_.clear_process(tgid);
  if (it->second.modules) release_tables(*it->second.modules);
  engine_.remove_rows(it->second.code_file);
  processes_.erase(it);
}

}  // namespace looptrace
