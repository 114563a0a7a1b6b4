// SPDX-License-Identifier: Apache-2.0
#include "sinks/queued_lines.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace looptrace {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

struct QueuedLines::Shared {
  explicit Shared(LineWriter out) : writer(std::move(out)) {}

  void run();

  LineWriter writer;  // the thread's own
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> lines;
  size_t bytes = 0;  // with that of the line that is being written
  std::optional<LineWriter> reopened;
  std::optional<Clock::time_point> writing_since;
  bool stopping = false, ended = false;
  bool hangs = false;
  std::optional<Error> gone;
  std::string failure;  // of the last line
  uint64_t full = 0, failed = 0;
  uint64_t given_up = 0;  // of `full`, at the end
};

void QueuedLines::Shared::run() {
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [&] { return stopping || !lines.empty(); });
    if (lines.empty()) break;
    if (reopened) writer = std::move(*std::exchange(reopened, std::nullopt));
    const std::string line = std::move(lines.front());
    lines.pop_front();
    writing_since = Clock::now();
    lock.unlock();
    const auto written = writer.write(line);
    lock.lock();
    writing_since.reset();
    bytes -= line.size();
    failure.clear();
    if (!written && is_reader_gone(written.error())) {
      gone = written.error();
      break;
    }
    if (!written) {
      failure = written.error().message();
      ++failed;
    }
    changed.notify_all();
  }
  ended = true;
  changed.notify_all();
}

QueuedLines::QueuedLines(LineWriter writer, Limits limits)
    : limits_(limits),
      name_(writer.name()),
      is_file_(writer.owns_file()),
      shared_(std::make_shared<Shared>(std::move(writer))),
      thread_([shared = shared_] { shared->run(); }) {}

QueuedLines::~QueuedLines() {
  if (trouble().empty()) QueuedLines::finish();
  bool ended;
  {
    std::unique_lock lock(shared_->mutex);
    shared_->stopping = true;
    shared_->lines.clear();
    shared_->changed.notify_all();
    ended = shared_->changed.wait_for(lock, limits_.patience, [&] { return shared_->ended; });
  }
  if (ended) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

Result<void> QueuedLines::push(std::string_view text, size_t limit) {
  Shared& s = *shared_;
  std::unique_lock lock(s.mutex);
  const auto fits = [&] { return s.gone || !s.bytes || s.bytes + text.size() <= limit; };
  const auto until = s.writing_since.value_or(Clock::now()) + limits_.patience;
  s.changed.wait_until(lock, until, fits);
  if (s.gone) return *s.gone;
  if (!fits()) {
    ++s.full;
    return {};
  }
  s.bytes += text.size();
  s.lines.emplace_back(text);
  s.changed.notify_all();
  return {};
}

Result<void> QueuedLines::write(std::string_view text) {
  return push(text, limits_.bytes - limits_.reserved);
}

Result<void> QueuedLines::write_first(std::string_view text) { return push(text, limits_.bytes); }

Result<void> QueuedLines::state() const {
  std::lock_guard lock(shared_->mutex);
  return shared_->gone ? Result<void>(*shared_->gone) : Result<void>();
}

Result<void> QueuedLines::reopen() {
  if (!is_file_) return {};
  auto file = LineWriter::append_to(name_);
  if (!file) return file.error();
  std::lock_guard lock(shared_->mutex);
  shared_->reopened = std::move(*file);
  return {};
}

std::string QueuedLines::trouble() {
  Shared& s = *shared_;
  std::lock_guard lock(s.mutex);
  if (s.writing_since && Clock::now() - *s.writing_since > limits_.hung) {
    s.hangs = true;
  } else if (!s.writing_since && s.lines.empty()) {
    s.hangs = false;
  }
  if (s.hangs) return "nobody reads " + name_;
  return s.failure;
}

std::map<std::string, uint64_t> QueuedLines::dropped() const {
  std::lock_guard lock(shared_->mutex);
  std::map<std::string, uint64_t> dropped;
  if (shared_->full) dropped["output_full"] = shared_->full;
  if (shared_->failed) dropped["output_failed"] = shared_->failed;
  return dropped;
}

void QueuedLines::finish() {
  Shared& s = *shared_;
  std::unique_lock lock(s.mutex);
  const bool done = s.changed.wait_for(lock, limits_.finish,
                                       [&] { return s.ended || (s.lines.empty() && !s.writing_since); });
  if (done) return;
  s.full += s.lines.size();
  s.given_up += s.lines.size();
  for (const std::string& line : s.lines) s.bytes -= line.size();
  s.lines.clear();
}

uint64_t QueuedLines::unwritten() const {
  std::lock_guard lock(shared_->mutex);
  return shared_->given_up + (shared_->writing_since ? 1 : 0);
}

}  // namespace looptrace
