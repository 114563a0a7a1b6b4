// SPDX-License-Identifier: Apache-2.0
#include "sinks/listing.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <vector>

#include "sinks/paint.h"

namespace looptrace {
namespace {

using Row = std::array<std::string, 8>;
constexpr size_t kFirstRight = 6;  // numbers stand to the right
constexpr size_t kNameWidth = 24;

std::string decimal(double value, int digits) {
  std::array<char, 48> text;
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

std::string poll_kind(const LoopInfo& loop) {
  return loop.fd ? loop.kind + " fd " + std::to_string(*loop.fd) : loop.kind;
}

Row make_row(const LoopListing& loop) {
  const auto name = [](const std::string& text) { return shorten_end(printable(text), kNameWidth); };
  return {std::to_string(loop.process.pid),
          std::to_string(loop.thread_id),
          name(loop.process.comm),
          name(loop.thread_name),
          name(loop.process.runtime.empty() ? "native" : loop.process.runtime),
          printable(poll_kind(loop.loop)),
          decimal(loop.iterations_per_second, loop.iterations_per_second < 100 ? 1 : 0),
          decimal(100 * loop.utilization, 1) + " %"};
}

}  // namespace

std::string render_listing(std::span<const LoopListing> loops, const Terminal& terminal) {
  std::vector<Row> rows = {{"PID", "TID", "PROCESS", "THREAD", "RUNTIME", "POLL", "ITERATIONS/S", "BUSY"}};
  for (const LoopListing& loop : loops) rows.push_back(make_row(loop));
  std::array<size_t, std::tuple_size_v<Row>> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns(row[i]));
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string blanks(widths[i] - columns(row[i]), ' ');
      line += (i ? "  " : "") + (i >= kFirstRight ? blanks + row[i] : row[i] + blanks);
    }
    text += Paint(terminal.colours)(&row == rows.data() ? Ink::bold : Ink::plain, line) + '\n';
  }
  return text;
}

}  // namespace looptrace
