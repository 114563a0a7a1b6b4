// SPDX-License-Identifier: Apache-2.0
#include "stacks/ahead.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <exception>
#include <utility>

#include "stacks/dwarf_lines.h"
#include "stacks/elf_file.h"
#include "stacks/separate_debug.h"

namespace looptrace {
namespace {

constexpr size_t kMaxWaiting = 4096;
// Smaller tables are read faster than anyone notices, and only where they are needed.
constexpr uint64_t kManySymbols = 8192;
constexpr int kNice = 10;

}  // namespace

Prepared prepare(const Ahead::Order& order, const std::stop_token& stop) {
  Prepared result;
  const ElfFile& file = *order.file;
  const auto own = find_symbols(file, SHT_SYMTAB);
  const bool own_lines = DwarfLines::has_dwarf(file);
  std::unique_ptr<ElfFile> debug;
  if (!own || !own_lines) debug = find_separate_debug(file, order.build_id, order.path, order.root);
  if (order.lines && (own_lines || debug))
    if (const auto dwarf = DwarfLines::open(own_lines ? file : *debug, order.root))
      result.lines = std::move(*dwarf).index(stop);
  if (own && own->count < kManySymbols) return result;
  SymbolTable functions(file);
  if (own ? functions.add(file, SHT_SYMTAB) : debug && functions.add(std::move(debug), SHT_SYMTAB))
    result.functions = std::move(functions);
  return result;
}

Ahead::~Ahead() {
  thread_.request_stop();
  changed_.notify_all();
}

std::future<Prepared> Ahead::prepare(Order order) {
  const std::lock_guard lock(mutex_);
  if (orders_.size() == kMaxWaiting) return {};
  if (!thread_.joinable()) thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
  auto& [kept, promise] = orders_.emplace_back(std::move(order), std::promise<Prepared>());
  changed_.notify_all();
  return promise.get_future();
}

void Ahead::work(const std::stop_token& stop) {
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNice);
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !orders_.empty(); }) && !stop.stop_requested()) {
    auto [order, promise] = std::move(orders_.front());
    orders_.pop_front();
    lock.unlock();
    try {
      promise.set_value(looptrace::prepare(order, stop));
    } catch (const std::exception&) {  // no memory: it is read when it is asked for
      promise.set_value({});
    }
    malloc_trim(0);
    lock.lock();
  }
}

}  // namespace looptrace
