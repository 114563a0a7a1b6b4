// SPDX-License-Identifier: Apache-2.0
#include "sinks/jsonl.h"

#include "sinks/other_json.h"
#include "sinks/window_json.h"

namespace looptrace {

Result<void> JsonlSink::start(const StartRecord& record) {
  write_start(line_, record, options_.host, options_.max_line);
  return writer_.write_first(line_);
}

Result<void> JsonlSink::stall(const Stall& record) {
  write_stall(line_, record, options_.host, options_.max_line);
  return writer_.write(line_);
}

Result<void> JsonlSink::loop(const LoopRecord& record) {
  write_loop_record(line_, record, options_.host, options_.max_line);
  return writer_.write(line_);
}

Result<void> JsonlSink::window(const WindowRecord& record) {
  write_window(line_, record, options_.host, options_.max_line);
  return writer_.write_first(line_);
}

Result<void> JsonlSink::warning(const WarningRecord& record) {
  write_warning(line_, record, options_.host, options_.max_line);
  return writer_.write_first(line_);
}

Result<void> JsonlSink::summary(const SummaryRecord& record) {
  write_summary(line_, record, options_.host, options_.max_line);
  return record.final ? writer_.write_first(line_) : writer_.write(line_);
}

}  // namespace looptrace
