// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "record/other_records.h"
#include "record/stall.h"

namespace looptrace {

/// What must not leave the host (`--redact paths,args,addresses`).
struct RedactRules {
  bool paths = false;      ///< "/srv/secret/app.py" -> "sha:1a2b3c4d/app.py"; one directory, one hash
  bool args = false;       ///< command lines are removed
  bool addresses = false;  ///< "10.0.0.7:5432" -> "redacted:5432"
  bool ids = false;        ///< container ids, cgroups and Kubernetes' names become keyed hashes
  std::string key = {};    ///< of these

  bool any() const { return paths || args || addresses || ids; }
};

/// Maps records to redacted ones: fields by their meaning, free text (details, warnings) word by word.
/// Function names and process names stay, and container ids unless `ids`. The hash of a path has no secret:
/// it hides a path from a reader, not from one who can guess it.
class Redactor {
 public:
  explicit Redactor(RedactRules rules) : rules_(std::move(rules)) {}

  Stall apply(Stall stall) const;
  LoopRecord apply(LoopRecord loop) const;
  StartRecord apply(StartRecord start) const;
  WarningRecord apply(WarningRecord warning) const;
  LoopListing apply(LoopListing listing) const;

 private:
  void hide_path(std::string& path) const;
  void hide_address(std::string& address) const;
  void hide_words(std::string& text) const;
  void hide_target(std::string& target) const;
  std::string hash(const std::string& text) const;
  void hide(ProcessInfo& process) const;
  void hide(ContainerInfo& container) const;
  void hide(Frame& frame) const;
  void hide(Wait& wait, std::string& detail) const;

  RedactRules rules_;
};

}  // namespace looptrace
