// SPDX-License-Identifier: Apache-2.0
#include "trace/processes.h"

#include <algorithm>
#include <set>
#include <utility>

#include "stacks/elf_object.h"
#include "targets/container.h"
#include "trace/clock.h"

namespace looptrace {

namespace {

constexpr uint64_t kRefreshNs = 1'000'000'000;
// The kernel waits for 15 ms at each update of its tables, so it gets many at once; but not all those of a
// process with hundreds of large files.
constexpr size_t kRowsAtOnce = 4u << 20;  // bytes
constexpr size_t kRowsAhead = 12u << 20;  // those of a Node.js and its libraries

}  // namespace

bool TracedProcess::in_made_code(uint64_t address) const {
  const Module* module = makes_code && modules ? modules->find(address) : nullptr;
  return module && module->code_rows;
}

bool TracedProcess::may_have_started_at(uint64_t boottime_ns) const {
  if (!boottime_ns) return true;
  if (start_boottime) return start_boottime == boottime_ns;
  return !started_ns || is_start(started_ns, boottime_ns);
}

TracedProcess* ProcessTable::find(uint32_t tgid) {
  const auto it = processes_.find(tgid);
  return it == processes_.end() ? nullptr : &it->second;
}

TracedProcess& ProcessTable::get(uint32_t tgid, uint64_t start_boottime) {
  if (TracedProcess* known = find(tgid)) {
    if (known->may_have_started_at(start_boottime)) {
      if (!known->start_boottime) known->start_boottime = start_boottime;
      return *known;
    }
    forget(tgid);
  }
  TracedProcess& process = processes_[tgid];
  process.tgid = tgid;
  process.start_boottime = start_boottime;
  if (const auto facts = read_process(procfs_, static_cast<pid_t>(tgid),
                                      kPartExe | kPartCommandLine | kPartCgroups | kPartStatus)) {
    process.started_ns = facts->start_ns;
    process.info = to_process_info(*facts);
    process.container = to_container_info(container_of(facts->cgroups));
  } else {
    process.info.pid = tgid;
  }
  if (name_service_) process.service = name_service_(process.info, process.container);
  load(process);
  return process;
}

bool ProcessTable::prepare(uint32_t tgid) {
  const auto modules = ProcessModules::load(static_cast<pid_t>(tgid), objects_);
  if (!modules) return false;
  size_t bytes = 0;
  for (const Module& m : modules->all()) {
    if (m.object && bytes < kRowsAhead) bytes += m.object->rows().size() * sizeof(lt_row);
  }
  return bytes < kRowsAhead;
}

void ProcessTable::add_tables(TracedProcess& process, const ProcessModules& modules) {
  std::set<std::shared_ptr<ElfObject>> added;
  Objects batch;
  size_t bytes = 0;
  bool all = true;
  for (const Module& m : modules.all()) {
    if (!m.object) continue;
    const Table& table = tables_[m.object];
    if (table.users || table.rows.file || !added.insert(m.object).second) continue;
    batch.push_back(m.object);
    bytes += m.object->rows().size() * sizeof(lt_row);
    if (bytes < kRowsAtOnce) continue;
    all &= give_to_kernel(process, batch);
    for (const auto& object : batch) object->drop_rows();
    batch.clear();
    bytes = 0;
  }
  all &= give_to_kernel(process, batch);
  if (!all) process.warn("unwind_table: there is no room for the unwind table of one more file");
}

bool ProcessTable::give_to_kernel(TracedProcess& process, const Objects& objects) {
  std::vector<const std::vector<lt_row>*> rows;
  for (const auto& object : objects) rows.push_back(&object->rows());
  const auto files = engine_.add_rows(rows);
  if (!files) {
    process.warn("unwind_table: " + files.error().message());
    return true;
  }
  bool all = true;
  for (size_t i = 0; i < objects.size(); ++i) {
    tables_[objects[i]].rows = (*files)[i];
    all &= (*files)[i].file || rows[i]->empty();
  }
  return all;
}

CodeTable ProcessTable::add_code(TracedProcess& process, const Module& module) {
  const std::vector<lt_row>* const one = module.code_rows.get();
  const auto files = engine_.add_rows({&one, 1});
  if (files && files->front().file) return {files->front(), module.bias};
  process.warn("unwind_table: " +
               (files ? "there is no room for that of compiled code" : files.error().message()));
  return process.code.bias == module.bias ? process.code : CodeTable{};
}

void ProcessTable::load(TracedProcess& process) {
  process.loaded_ns = monotonic_ns();
  auto modules = ProcessModules::load(static_cast<pid_t>(process.tgid), objects_);
  if (!modules) return;

  if (!process.runtime) {
    std::optional<std::string> warning;
    process.runtime = detect_runtime(static_cast<pid_t>(process.tgid), *modules, warning);
    if (warning) process.warn("runtime_unknown: " + *warning);
    if (process.runtime) process.info.runtime = process.runtime->name();
  }
  process.makes_code = process.runtime && process.runtime->cover(*modules);
  if (process.makes_code && process.runtime->left_code_out())
    process.warn("unwind_table: there is more compiled code than is looked at; stacks are cut in the rest");

  CodeTable code;
  add_tables(process, *modules);
  std::vector<lt_module> table;
  std::set<std::shared_ptr<ElfObject>> used;
  for (const Module& m : modules->all()) {
    lt_module entry{m.start, m.end, m.bias, {}};
    if (m.object) {
      Table& rows = tables_[m.object];
      if (used.insert(m.object).second) ++rows.users;
      entry.table = rows.rows;
    } else if (m.code_rows && !m.code_rows->empty()) {
      if (!code.table.file) code = add_code(process, m);
      entry.table = code.table;
    }
    if (table.size() < LT_MAX_MODULES) table.push_back(entry);
  }
  if (modules->all().size() > LT_MAX_MODULES) {
    process.warn("modules_full: more than " + std::to_string(LT_MAX_MODULES) +
                 " executable mappings; stacks through the others are cut short");
  }

  lt_process config{};
  if (process.runtime) {
    process.runtime->look_at(*modules);
    process.runtime->configure(config);
  }
  const auto is_set = engine_.set_process(process.tgid, table, config);
  if (!is_set) process.warn("unwind_table: " + is_set.error().message());
  if (!is_set && process.modules) {  // the kernel goes on by the tables it was given before
    if (code.table.file != process.code.table.file) engine_.remove_rows(code.table.file);
    release_tables(*modules);
    return;
  }
  if (process.modules) release_tables(*process.modules);
  process.modules = std::move(*modules);
  if (code.table.file != process.code.table.file) engine_.remove_rows(process.code.table.file);
  process.code = code;
}

void ProcessTable::refresh(TracedProcess& process, uint64_t now_ns) {
  if (process.is_older(kRefreshNs, now_ns)) load(process);
}

void ProcessTable::release_tables(const ProcessModules& modules) {
  std::set<std::shared_ptr<ElfObject>> used;
  for (const Module& m : modules.all()) {
    if (!m.object || !used.insert(m.object).second) continue;
    const auto it = tables_.find(m.object);
    if (it == tables_.end() || --it->second.users) continue;
    engine_.remove_rows(it->second.rows.file);
    tables_.erase(it);
  }
}

void ProcessTable::drop_memory(bool unload) {
  for (auto& [tgid, process] : processes_) {
    if (!unload || !process.modules) continue;
    engine_.clear_process(tgid);
    release_tables(*process.modules);
    engine_.remove_rows(std::exchange(process.code, {}).table.file);
    process.modules.reset();
  }
  objects_.drop_all();
}

void ProcessTable::load_again() {
  for (auto& [tgid, process] : processes_) {
    if (!process.modules) load(process);
  }
}

void ProcessTable::forget(uint32_t tgid) {
  const auto it = processes_.find(tgid);
  if (it == processes_.end()) return;
  engine_.clear_process(tgid);
  if (it->second.modules) release_tables(*it->second.modules);
  engine_.remove_rows(it->second.code.table.file);
  processes_.erase(it);
}

}  // namespace looptrace
