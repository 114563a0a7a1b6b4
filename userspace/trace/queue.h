// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

namespace looptrace {

/// What the reader and the watcher hand to the worker.
struct Message {
  enum class Kind {
    record,    ///< a ring record, in `bytes`
    open_due,  ///< the open iteration of loop `slot` that began at `start_ns` has passed a report mark
  };
  Kind kind = Kind::record;
  std::vector<std::byte> bytes;
  uint32_t slot = 0;
  uint64_t start_ns = 0;
};

/// A queue bounded by bytes: a slow reader of our output must not make us grow.
class MessageQueue {
 public:
  explicit MessageQueue(size_t limit_bytes) : limit_(limit_bytes) {}

  /// False if it is full: the caller counts the loss.
  bool push(Message message) {
    {
      std::lock_guard lock(mutex_);
      if (bytes_ + message.bytes.size() > limit_) return false;
      bytes_ += message.bytes.size() + sizeof(Message);
      messages_.push_back(std::move(message));
    }
    ready_.notify_one();
    return true;
  }

  /// All that waits; empty after `timeout`, or at once after stop().
  std::deque<Message> take(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, timeout, [&] { return stopped_ || !messages_.empty(); });
    bytes_ = 0;
    return std::exchange(messages_, {});
  }

  void stop() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    ready_.notify_all();
  }

 private:
  const size_t limit_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Message> messages_;
  size_t bytes_ = 0;
  bool stopped_ = false;
};

}  // namespace looptrace
