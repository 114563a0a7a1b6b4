// SPDX-License-Identifier: Apache-2.0
#include "sinks/check_report.h"

#include <algorithm>

#include "sinks/json_parts.h"
#include "sinks/json_writer.h"
#include "sinks/paint.h"

namespace looptrace {
namespace {

struct Mark {
  const char* text;
  Ink ink;
};

Mark mark_of(const Capability& capability) {
  if (capability.available) return {"yes", Ink::green};
  return capability.required ? Mark{"MISSING", Ink::red} : Mark{"no", Ink::yellow};
}

}  // namespace

std::string render_check(std::span<const Capability> capabilities, const Terminal& terminal) {
  constexpr size_t kMarkWidth = 7;
  const Paint paint(terminal.colours);
  size_t name_width = 0, missing = 0;
  for (const Capability& c : capabilities) {
    name_width = std::max(name_width, columns(printable(c.name)));
    if (c.required && !c.available) ++missing;
  }
  std::string text;
  for (const Capability& c : capabilities) {
    const Mark mark = mark_of(c);
    std::string line = paint(mark.ink, pad(mark.text, kMarkWidth)) + "  " +
                       pad(printable(c.name), name_width) + "  " + printable(c.detail);
    while (line.ends_with(' ')) line.pop_back();
    text += line + '\n';
    if (!c.available && !c.mend.empty()) {
      text += std::string(kMarkWidth + 2 + name_width + 2, ' ') + "-> " + printable(c.mend) + '\n';
    }
  }
  text += missing ? paint(Ink::red, "looptrace cannot run here: " + std::to_string(missing) +
                                        (missing == 1 ? " thing" : " things") + " it needs missing")
                  : paint(Ink::green, "looptrace can run here");
  return text + '\n';
}

std::string check_json(std::span<const Capability> capabilities) {
  std::string text;
  JsonWriter json(text, SIZE_MAX);
  json.begin_object();
  json.field("schema", "looptrace.check/1");
  write_features(json, capabilities, true);
  json.end_object();
  return text + '\n';
}

}  // namespace looptrace
