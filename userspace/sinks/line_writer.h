// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace looptrace {

/// What takes finished lines. One thread calls it.
class LineOutput {
 public:
  virtual ~LineOutput() = default;
  /// Error.err is EPIPE where the reader went away: see is_reader_gone().
  virtual Result<void> write(std::string_view text) = 0;
  /// The same for a line that is kept where there is no room for others.
  virtual Result<void> write_first(std::string_view text) { return write(text); }
};

/// Where finished lines go: a descriptor that someone else owns (stdout), or a file that is appended to.
/// SIGPIPE must be ignored, or a reader that leaves ends the process. One thread uses it.
class LineWriter : public LineOutput {
 public:
  static LineWriter borrow(int fd, std::string name = "standard output");
  /// Begins with a line feed if the file ends in the middle of a line, as a run that was killed leaves it.
  static Result<LineWriter> append_to(const std::string& path);

  /// One write(2) where the kernel takes it whole. Blocks on a descriptor that is full, non-blocking ones
  /// included.
  Result<void> write(std::string_view text) override;

  /// Opens the file of append_to() anew, for log rotation; keeps the old one if that fails. For a borrowed
  /// descriptor there is nothing to do.
  Result<void> reopen();

  /// It was opened by append_to().
  bool owns_file() const { return static_cast<bool>(owned_); }
  int fd() const { return owned_ ? owned_.get() : borrowed_; }
  const std::string& name() const { return name_; }

 private:
  LineWriter(int borrowed, UniqueFd owned, std::string name);

  int borrowed_ = -1;
  UniqueFd owned_;
  std::string name_;
  bool torn_ = false;  // the last line on the file has no end
};

/// The reader of our output went away: the quiet end of a trace, not a failure.
bool is_reader_gone(const Error& error);

}  // namespace looptrace
