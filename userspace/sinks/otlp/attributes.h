// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sinks/json_writer.h"

namespace looptrace {

/// Writes the elements of an array of OTLP's KeyValue. What does not apply is left out, as by JsonWriter.
class OtlpAttributes {
 public:
  explicit OtlpAttributes(JsonWriter& json) : json_(json) {}

  void text(std::string_view key, std::string_view value) {
    if (!value.empty()) write(key, "stringValue", value);
  }
  void integer(std::string_view key, uint64_t value) {
    write(key, "intValue", std::string_view(std::to_string(value)));
  }
  void integer(std::string_view key, const std::optional<int>& value) {
    if (value) write(key, "intValue", std::string_view(std::to_string(*value)));
  }
  void real(std::string_view key, double value) { write(key, "doubleValue", value); }

 private:
  template <typename Value>
  void write(std::string_view key, const char* type, Value value) {
    json_.begin_object();
    json_.field("key", key);
    json_.begin_object("value");
    json_.field(type, value);
    json_.end_object();
    json_.end_object();
  }

  JsonWriter& json_;
};

}  // namespace looptrace
