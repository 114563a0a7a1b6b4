// SPDX-License-Identifier: Apache-2.0
#include "sinks/schema.h"

#include "sinks/schemas/embedded.h"

namespace looptrace {

const char* schema_text(std::string_view record) {
  for (const EmbeddedSchema& schema : embedded_schemas()) {
    if (schema.record == record) return schema.text;
  }
  return nullptr;
}

std::vector<std::string_view> schema_names() {
  std::vector<std::string_view> names;
  for (const EmbeddedSchema& schema : embedded_schemas()) names.push_back(schema.record);
  return names;
}

Result<std::string> schema_output(std::string_view record) {
  if (!record.empty()) {
    if (const char* text = schema_text(record)) return std::string(text);
    std::string known;
    for (const std::string_view name : schema_names()) (known += known.empty() ? "" : ", ") += name;
    return Error{"no record is called '" + std::string(record) + "'; there are " + known +
                     ", as in: looptrace schema stall",
                 0, Fault::usage};
  }
  std::string all = "{";
  for (const EmbeddedSchema& schema : embedded_schemas()) {
    all += all.size() > 1 ? ",\n\"" : "\n\"";
    all += schema.record;
    all += "\": ";
    std::string_view text = schema.text;
    while (text.ends_with('\n')) text.remove_suffix(1);
    all += text;
  }
  return all + "\n}\n";
}

}  // namespace looptrace
