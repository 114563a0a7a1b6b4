// SPDX-License-Identifier: Apache-2.0
#include "record_rules.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace looptrace::test {
namespace {

using nlohmann::json;
using Patterns = std::map<std::string, std::regex>;

void collect_patterns(const json& schema, Patterns& patterns) {
  if (schema.is_object() && schema.contains("pattern") && schema["pattern"].is_string()) {
    const std::string text = schema["pattern"];
    patterns.try_emplace(text, text, std::regex::ECMAScript);
  }
  if (schema.is_structured())
    for (const json& child : schema) collect_patterns(child, patterns);
}

bool has_type(const json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "number") return value.is_number();
  if (type == "integer")
    return value.is_number_integer() || (value.is_number_float() && std::trunc(value.get<double>()) == value);
  throw std::invalid_argument("a schema has the type " + type);
}

size_t characters(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

/// The part of JSON Schema 2020-12 that the schemas use. What it does not know, no schema may have.
class Judge {
 public:
  Judge(const json& root, const Patterns& patterns) : root_(root), patterns_(patterns) {}

  std::string fault(const json& schema, const json& value, const std::string& path) const {
    if (schema.is_boolean()) return schema.get<bool>() ? "" : path + ": not allowed";
    for (const auto& [keyword, wanted] : schema.items()) {
      std::string fault = by_keyword(schema, keyword, wanted, value, path);
      if (!fault.empty()) return fault;
    }
    return "";
  }

 private:
  std::string by_keyword(const json& schema, const std::string& keyword, const json& wanted,
                         const json& value, const std::string& path) const {
    static const std::set<std::string> kNotes = {"$schema", "$defs", "title", "description"};
    const auto wrong = [&] {
      return path + ": " + keyword + " is " + wanted.dump() + ", here is " + value.dump();
    };
    bool right = true;
    if (kNotes.contains(keyword)) {
    } else if (keyword == "$ref") {
      return fault(root_.at(json::json_pointer(wanted.get<std::string>().substr(1))), value, path);
    } else if (keyword == "type") {
      right = has_type(value, wanted);
    } else if (keyword == "const") {
      right = value == wanted;
    } else if (keyword == "enum") {
      right = std::find(wanted.begin(), wanted.end(), value) != wanted.end();
    } else if (keyword == "minLength") {
      right = !value.is_string() || characters(value) >= wanted.get<size_t>();
    } else if (keyword == "pattern") {
      right = !value.is_string() || std::regex_search(value.get<std::string>(), patterns_.at(wanted));
    } else if (keyword == "minimum") {
      right = !value.is_number() || value >= wanted;
    } else if (keyword == "maximum") {
      right = !value.is_number() || value <= wanted;
    } else if (keyword == "exclusiveMinimum") {
      right = !value.is_number() || value > wanted;
    } else if (keyword == "uniqueItems") {
      right = !wanted.get<bool>() || !value.is_array() ||
              std::set<json>(value.begin(), value.end()).size() == value.size();
    } else if (keyword == "required") {
      right = !value.is_object() ||
              std::all_of(wanted.begin(), wanted.end(), [&](const json& key) { return value.contains(key); });
    } else if (keyword == "properties") {
      return of_properties(wanted, value, path);
    } else if (keyword == "additionalProperties") {
      return of_others(schema, wanted, value, path);
    } else if (keyword == "items") {
      return of_items(wanted, value, path);
    } else {
      throw std::invalid_argument("a schema has the keyword " + keyword);
    }
    return right ? "" : wrong();
  }

  std::string of_properties(const json& schemas, const json& value, const std::string& path) const {
    if (!value.is_object()) return "";
    for (const auto& [key, child] : value.items()) {
      const auto schema = schemas.find(key);
      if (schema == schemas.end()) continue;
      if (std::string found = fault(*schema, child, path + "." + key); !found.empty()) return found;
    }
    return "";
  }

  std::string of_others(const json& schema, const json& wanted, const json& value,
                        const std::string& path) const {
    if (!value.is_object()) return "";
    for (const auto& [key, child] : value.items()) {
      if (schema.contains("properties") && schema["properties"].contains(key)) continue;
      if (std::string found = fault(wanted, child, path + "." + key); !found.empty()) return found;
    }
    return "";
  }

  std::string of_items(const json& schema, const json& value, const std::string& path) const {
    if (!value.is_array()) return "";
    for (size_t i = 0; i < value.size(); ++i) {
      std::string found = fault(schema, value[i], path + "[" + std::to_string(i) + "]");
      if (!found.empty()) return found;
    }
    return "";
  }

  const json& root_;
  const Patterns& patterns_;
};

/// What no schema says once for all: null and "" mean absent, keys hold no dots.
std::string house_fault(const json& value, const std::string& path, bool keys_are_data) {
  if (value.is_null() || value == "") return path + " is " + value.dump() + ": leave it out";
  if (!value.is_structured()) return "";
  for (const auto& [key, child] : value.items()) {
    if (value.is_object() && !keys_are_data && key.find('.') != key.npos)
      return path + " has the key '" + key + "' with a dot";
    std::string found = house_fault(child, path + "." + key, key == "features" || key == "dropped");
    if (!found.empty()) return found;
  }
  return "";
}

std::string stall_fault(const json& stall) {
  const json& parts = stall["time_ns"];
  const uint64_t total =
      parts["on_cpu"].get<uint64_t>() + parts["runqueue"].get<uint64_t>() + parts["blocked"].get<uint64_t>();
  if (stall["state"] == "closed" && total != stall["duration_ns"].get<uint64_t>())
    return "time_ns adds up to " + std::to_string(total) + ", duration_ns is " + stall["duration_ns"].dump();
  const size_t stacks = stall.value("stacks", json::array()).size();
  for (const json& wait : stall.value("waits", json::array())) {
    if (wait.contains("stack") && wait["stack"].get<size_t>() >= stacks)
      return "a wait points to stack " + wait["stack"].dump() + ", which is not there";
  }
  return "";
}

/// A parsed line, and the first key that stands twice in one object.
struct Parsed {
  json record;
  std::string twice;
};

Parsed parse(const std::string& line) {
  Parsed parsed;
  std::vector<std::set<std::string>> keys;
  const auto look = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      parsed.twice = value;
    return true;
  };
  parsed.record = json::parse(line, look, false);
  return parsed;
}

}  // namespace

RecordRules::RecordRules() {
  for (const auto& entry : std::filesystem::directory_iterator(SCHEMA_DIR)) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream file(entry.path());
    const json& schema = schemas_["looptrace." + entry.path().stem().string() + "/1"] = json::parse(file);
    collect_patterns(schema, patterns_);
  }
}

std::string RecordRules::schema_fault(const json& record) const {
  const auto name = record.is_object() ? record.find("schema") : record.end();
  const bool named = record.is_object() && name != record.end() && name->is_string();
  const auto schema = named ? schemas_.find(name->get<std::string>()) : schemas_.end();
  if (schema == schemas_.end()) return "its schema is absent or not known";
  return Judge(schema->second, patterns_).fault(schema->second, record, "$");
}

std::string RecordRules::fault(const std::string& line, size_t max_line) const {
  if (max_line && line.size() > max_line)
    return std::to_string(line.size()) + " bytes, more than " + std::to_string(max_line);
  if (!line.ends_with('\n')) return "no line feed at its end";
  const auto [record, twice] = parse(line);
  if (record.is_discarded()) return "not JSON";
  if (!twice.empty()) return "the key '" + twice + "' stands twice";
  if (std::string found = schema_fault(record); !found.empty()) return found;
  if (std::string found = house_fault(record, "$", false); !found.empty()) return found;
  return record["schema"] == "looptrace.stall/1" ? stall_fault(record) : "";
}

}  // namespace looptrace::test
