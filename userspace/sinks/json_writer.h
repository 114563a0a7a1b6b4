// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace looptrace {

/// Appends JSON to a string, keys in the order of the calls. Records are written at up to 10,000 a second:
/// a document tree costs ten times as much. What does not apply is left out: a field() with an empty text,
/// an empty optional, or a number that is not finite writes nothing. Text that is not UTF-8 gets U+FFFD;
/// control characters are escaped, those of Unicode's C1 block too, because some terminals obey them.
class JsonWriter {
 public:
  /// Texts are cut to `text_limit` bytes of output each, with an ellipsis at their end.
  JsonWriter(std::string& out, size_t text_limit) : out_(out), text_limit_(text_limit) {}

  void begin_object();
  void begin_object(std::string_view key);
  void end_object();
  void begin_array(std::string_view key);
  void end_array();

  void field(std::string_view key, std::string_view text);
  void field(std::string_view key, const char* text) { field(key, std::string_view(text)); }
  void field(std::string_view key, const std::string& text) { field(key, std::string_view(text)); }
  void field(std::string_view key, uint64_t number);
  void field(std::string_view key, uint32_t number) { field(key, uint64_t{number}); }
  void field(std::string_view key, int64_t number);
  void field(std::string_view key, int number) { field(key, int64_t{number}); }
  void field(std::string_view key, double number);
  void field(std::string_view key, bool value);
  template <typename T>
  void field(std::string_view key, const std::optional<T>& value) {
    if (value) field(key, *value);
  }
  void element(std::string_view text);

  /// Bytes of the longest text so far, as it stands or would have stood in the output.
  size_t longest_text() const { return longest_text_; }

 private:
  void comma();
  void key(std::string_view name);
  void text(std::string_view text);

  std::string& out_;
  size_t text_limit_;
  size_t longest_text_ = 0;
};

}  // namespace looptrace
