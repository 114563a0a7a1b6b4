// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "stacks/source_index.h"
#include "stacks/symbol_table.h"

namespace looptrace {

class ElfFile;

/// What of a file takes long to read, where it does: libc's debug file takes 100 ms, the symbols of
/// Node.js 5.
struct Prepared {
  std::optional<SymbolTable> functions;
  std::optional<SourceIndex> lines;
};

/// Reads files in a thread of its own, which lets others go first, before their first frame is asked for.
/// Shares nothing with who asks but the file, of which both only read.
class Ahead {
 public:
  struct Order {
    std::shared_ptr<const ElfFile> file;
    std::string build_id, path, root;  ///< see find_separate_debug()
    bool lines = true;
  };

  Ahead() = default;
  ~Ahead();
  Ahead(const Ahead&) = delete;
  Ahead& operator=(const Ahead&) = delete;

  /// Not valid where too many wait already.
  std::future<Prepared> prepare(Order order);

 private:
  void work(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::pair<Order, std::promise<Prepared>>> orders_;
  std::jthread thread_;
};

/// What Ahead does with one order.
Prepared prepare(const Ahead::Order& order, const std::stop_token& stop);

}  // namespace looptrace
