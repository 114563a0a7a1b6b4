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
    barrier,   ///< the reader has read all that was in the ring when `start_ns`, a number, was asked for
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

  /// False if it is full: the caller counts the loss. A question may take a quarter only: whoever is that
  /// late with what has happened has no time for what is going on.
  bool push(Message message) {
    {
      std::lock_guard lock(mutex_);
      const size_t limit = message.kind == Message::Kind::open_due ? limit_ / 4 : limit_;
      if (bytes_ + message.bytes.size() > limit) return false;
      bytes_ += cost(message);
      messages_.push_back(std::move(message));
    }
    ready_.notify_one();
    return true;
  }

  /// The next of what waits, in order: kBatchBytes of it at most, so that what is being worked on is little
  /// beside the limit. Empty after `timeout`, or at once after stop().
  std::vector<Message> take(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, timeout, [&] { return stopped_ || !messages_.empty(); });
    std::vector<Message> batch;
    for (size_t taken = 0; !messages_.empty() && taken < kBatchBytes;) {
      const size_t bytes = cost(messages_.front());
      taken += bytes;
      bytes_ -= bytes;
      batch.push_back(std::move(messages_.front()));
      messages_.pop_front();
    }
    return batch;
  }

  void stop() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    ready_.notify_all();
  }

 private:
  static constexpr size_t kBatchBytes = 256u << 10;
  static size_t cost(const Message& message) { return message.bytes.size() + sizeof(Message); }

  const size_t limit_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Message> messages_;
  size_t bytes_ = 0;
  bool stopped_ = false;
};

}  // namespace looptrace
