// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "sinks/otlp/log_record.h"

namespace looptrace {

/// What became of one request.
struct OtlpAnswer {
  enum class Kind {
    accepted,
    retry,    ///< nobody answered, or with 429, 502, 503 or 504
    refused,  ///< the same would be refused again
  };
  Kind kind = Kind::refused;
  uint64_t rejected = 0;  ///< of the records in an accepted request
  std::optional<std::chrono::seconds> retry_after;
  std::string what;  ///< for people, where not all was accepted
};

/// Posts a request. Fakes stand in for it in tests.
class OtlpTransport {
 public:
  virtual ~OtlpTransport() = default;
  /// Returns soon after `abort` becomes true. One thread calls it.
  virtual OtlpAnswer post(const std::string& request, const std::atomic<bool>& abort) = 0;
};

/// Sends records in batches, from a thread of its own. The queue is bounded; what it cannot hold is dropped,
/// new ones first. A batch that is not taken is tried again, later each time, then dropped. All drops are
/// counted.
class OtlpExporter {
 public:
  using Millis = std::chrono::milliseconds;
  struct Limits {
    size_t queue_bytes = 8u << 20;
    size_t batch_bytes = 1u << 20;
    size_t batch_records = 512;
    Millis gather{1000};  ///< a batch that is not full waits this long for more
    int attempts = 6;
    Millis first_pause{1000};      ///< before the second attempt; doubles, with jitter
    Millis longest_pause{30'000};  ///< also bounds what a collector may ask for by Retry-After
    Millis finish{5000};
  };

  OtlpExporter(std::unique_ptr<OtlpTransport> transport, Limits limits, std::string version);
  ~OtlpExporter();

  void push(OtlpRecord record);
  /// Sends what is queued, without waiting for more, one attempt each. Returns when it is done, or drops the
  /// rest when its time is over. What is pushed after it is sent as ever.
  void finish();

  /// By reason: otlp_queue_full, otlp_unreachable (attempts or time ran out), otlp_rejected (by the
  /// collector).
  std::map<std::string, uint64_t> dropped() const;
  /// Fails while the collector does not take what it is sent.
  Result<void> state() const;

 private:
  void finish_within(Millis time);
  void run(const std::stop_token& stop);
  std::vector<OtlpRecord> take_batch(std::unique_lock<std::mutex>& lock, const std::stop_token& stop);
  void send(const std::vector<OtlpRecord>& batch);
  Millis pause_before(int attempt, const OtlpAnswer& last);
  bool wait_pause(Millis pause);
  void drop(const char* reason, uint64_t n);

  const std::unique_ptr<OtlpTransport> transport_;
  const Limits limits_;
  const std::string version_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<OtlpRecord> queue_;
  size_t queued_bytes_ = 0;
  bool sending_ = false;
  bool finishing_ = false;
  std::atomic<bool> abort_{false};
  std::map<std::string, uint64_t> dropped_;
  std::string trouble_;
  std::jthread thread_;
};

}  // namespace looptrace
