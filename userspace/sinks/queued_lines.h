// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "sinks/line_writer.h"
#include "sinks/tee.h"

namespace looptrace {

/// Lines on their way to a reader that may be slow, hang, or refuse them for a while: a bounded queue, and a
/// thread that writes. Who calls write() is never held up for long: what there is no room for is dropped and
/// counted, as is what could not be written. One thread calls it.
class QueuedLines : public LineOutput, public Lossy {
 public:
  using Millis = std::chrono::milliseconds;
  struct Limits {
    size_t bytes = 4u << 20;
    size_t reserved = 1u << 20;  ///< of these, for write_first() alone
    Millis patience{100};  ///< a reader that takes a line in this time is waited for, where there is no room
    Millis hung{5000};     ///< one that takes none in this time hangs
    Millis finish{2000};   ///< how long is waited at the end for what is queued
  };

  explicit QueuedLines(LineWriter writer) : QueuedLines(std::move(writer), Limits()) {}
  QueuedLines(LineWriter writer, Limits limits);
  /// Waits as finish() does. A thread that hangs in write(2) is left behind: nothing gets it out of there.
  ~QueuedLines() override;
  QueuedLines(const QueuedLines&) = delete;
  QueuedLines& operator=(const QueuedLines&) = delete;

  /// Fail only where the reader has gone.
  Result<void> write(std::string_view text) override;
  Result<void> write_first(std::string_view text) override;
  /// The error of a reader that has gone: for who has nothing to write for a while.
  Result<void> state() const;
  /// Opens the file anew, for log rotation; keeps the old one if that fails.
  Result<void> reopen();

  /// Why nobody receives what is written now: the reader hangs, or lines cannot be written. Empty again once
  /// all that was queued has gone.
  std::string trouble();
  /// By reason: output_full, output_failed.
  std::map<std::string, uint64_t> dropped() const override;
  /// Waits until all is written, or drops the rest.
  void finish() override;
  /// How many lines finish() has not seen written: those it dropped, and one whose writing goes on.
  uint64_t unwritten() const;
  const std::string& name() const { return name_; }

 private:
  struct Shared;

  Result<void> push(std::string_view text, size_t limit);

  const Limits limits_;
  const std::string name_;
  const bool is_file_;
  std::shared_ptr<Shared> shared_;  // with the thread, which may have to be left behind
  std::thread thread_;
};

}  // namespace looptrace
