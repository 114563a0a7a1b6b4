// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "sinks/line_writer.h"
#include "sinks/sink.h"
#include "sinks/terminal_text.h"

namespace looptrace {

struct PrettyOptions {
  Terminal terminal;
  bool verbose = false;  ///< a line for each loop and interval too
};

/// For eyes: a block per stall, its application code and culprit marked. Names from traced processes reach
/// the terminal only through printable().
class PrettySink : public Sink {
 public:
  /// `writer` outlives the sink.
  PrettySink(LineWriter& writer, PrettyOptions options) : writer_(writer), options_(options) {}

  Result<void> start(const StartRecord& record) override;
  Result<void> stall(const Stall& record) override;
  Result<void> loop(const LoopRecord& record) override;
  Result<void> window(const WindowRecord& record) override;
  Result<void> warning(const WarningRecord& record) override;
  Result<void> summary(const SummaryRecord& record) override;

 private:
  LineWriter& writer_;
  PrettyOptions options_;
};

/// The block of one stall, without its surroundings.
std::string render_stall(const Stall& stall, const Terminal& terminal);

}  // namespace looptrace
