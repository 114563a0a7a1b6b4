// SPDX-License-Identifier: Apache-2.0
#include "sinks/otlp/exporter.h"

#include <algorithm>
#include <random>
#include <utility>

namespace looptrace {
namespace {

// For what came after finish(): the last summary.
constexpr OtlpExporter::Millis kLastFinish{2000};

}  // namespace

OtlpExporter::OtlpExporter(std::unique_ptr<OtlpTransport> transport, Limits limits, std::string version)
    : transport_(std::move(transport)),
      limits_(limits),
      version_(std::move(version)),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

OtlpExporter::~OtlpExporter() {
  finish_within(std::min(limits_.finish, kLastFinish));
  thread_.request_stop();
  thread_.join();
}

void OtlpExporter::push(OtlpRecord record) {
  {
    std::lock_guard lock(mutex_);
    if (queued_bytes_ + record.bytes() > limits_.queue_bytes) {
      ++dropped_["otlp_queue_full"];
      return;
    }
    queued_bytes_ += record.bytes();
    queue_.push_back(std::move(record));
  }
  changed_.notify_all();
}

void OtlpExporter::finish() { finish_within(limits_.finish); }

void OtlpExporter::finish_within(Millis time) {
  std::unique_lock lock(mutex_);
  finishing_ = true;
  abort_ = false;
  changed_.notify_all();
  const auto idle = [&] { return queue_.empty() && !sending_; };
  if (!changed_.wait_for(lock, time, idle)) {
    abort_ = true;
    if (!queue_.empty()) dropped_["otlp_unreachable"] += queue_.size();
    queue_.clear();
    queued_bytes_ = 0;
    changed_.wait(lock, idle);  // what was being sent is aborted
  }
  finishing_ = false;
  abort_ = false;
}

std::map<std::string, uint64_t> OtlpExporter::dropped() const {
  std::lock_guard lock(mutex_);
  return dropped_;
}

Result<void> OtlpExporter::state() const {
  std::lock_guard lock(mutex_);
  if (trouble_.empty()) return {};
  return Error{trouble_};
}

void OtlpExporter::drop(const char* reason, uint64_t n) {
  std::lock_guard lock(mutex_);
  dropped_[reason] += n;
}

// Waits for a record, then for a full batch or the time to gather one.
std::vector<OtlpRecord> OtlpExporter::take_batch(std::unique_lock<std::mutex>& lock,
                                                 const std::stop_token& stop) {
  changed_.wait(lock, stop, [&] { return !queue_.empty(); });
  changed_.wait_for(lock, stop, limits_.gather, [&] {
    return finishing_ || queued_bytes_ >= limits_.batch_bytes || queue_.size() >= limits_.batch_records;
  });
  std::vector<OtlpRecord> batch;
  size_t bytes = 0;
  while (!queue_.empty() && batch.size() < limits_.batch_records) {
    bytes += queue_.front().bytes();
    if (!batch.empty() && bytes > limits_.batch_bytes) break;
    queued_bytes_ -= queue_.front().bytes();
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

void OtlpExporter::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const std::vector<OtlpRecord> batch = take_batch(lock, stop);
    if (batch.empty()) continue;
    sending_ = true;
    lock.unlock();
    send(batch);
    lock.lock();
    sending_ = false;
    changed_.notify_all();
  }
}

// Up to a quarter more or less, so that the agents of a fleet do not come back together.
OtlpExporter::Millis OtlpExporter::pause_before(int attempt, const OtlpAnswer& last) {
  thread_local std::minstd_rand random{std::random_device{}()};
  Millis pause = limits_.first_pause;
  for (int i = 1; i < attempt && pause < limits_.longest_pause; ++i) pause *= 2;
  pause = std::min(pause, limits_.longest_pause);
  pause = pause * std::uniform_int_distribution<int>(75, 125)(random) / 100;
  if (last.retry_after) pause = std::max(pause, Millis(*last.retry_after));
  return std::min(pause, limits_.longest_pause);
}

// False if it was cut short, because there is no time left for pauses.
bool OtlpExporter::wait_pause(Millis pause) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, pause, [&] { return finishing_; });
}

void OtlpExporter::send(const std::vector<OtlpRecord>& batch) {
  const std::string request = otlp_request(batch, version_);
  for (int attempt = 1;; ++attempt) {
    const OtlpAnswer answer = transport_->post(request, abort_);
    {
      std::lock_guard lock(mutex_);
      trouble_ = answer.what;
    }
    if (answer.kind == OtlpAnswer::Kind::accepted) {
      if (answer.rejected) drop("otlp_rejected", std::min<uint64_t>(answer.rejected, batch.size()));
      return;
    }
    if (answer.kind == OtlpAnswer::Kind::refused) return drop("otlp_rejected", batch.size());
    bool last = attempt >= limits_.attempts;
    {
      std::lock_guard lock(mutex_);
      last |= finishing_;
    }
    if (last) return drop("otlp_unreachable", batch.size());
    // Cut short, it is tried once more at once.
    (void)wait_pause(pause_before(attempt, answer));
  }
}

}  // namespace looptrace
