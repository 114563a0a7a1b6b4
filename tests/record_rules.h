// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

namespace looptrace::test {

/// Judges lines of JSON Lines by their schemas and by the rules of the house. A process of its own for each
/// of the tests' some hundred traces would take longer than many of these; that it judges as an independent
/// validator does is a test of its own (Schema.JudgesAsJsonschemaDoes).
class RecordRules {
 public:
  /// Of the schemas in the source tree: NAME.json is that of records "looptrace.NAME/1".
  RecordRules();

  /// What is wrong with a line, its line feed included; empty if nothing is. 0 = it may have any length.
  std::string fault(const std::string& line, size_t max_line) const;
  /// By the schemas alone.
  std::string schema_fault(const nlohmann::json& record) const;

 private:
  std::map<std::string, nlohmann::json> schemas_;
  std::map<std::string, std::regex> patterns_;
};

}  // namespace looptrace::test
