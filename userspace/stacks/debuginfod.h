// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace looptrace {

/// Debug files from debuginfod servers, for --debuginfod only: a question tells a server which programs run
/// here, and its answer may take a while, in which records queue up. elfutils' client library is opened when
/// asked for; it reads DEBUGINFOD_URLS and keeps what it fetched in its own cache.
class Debuginfod {
 public:
  /// Fails where the library is not installed or no server is named. Call it before there are threads: what
  /// the user has not limited by DEBUGINFOD_TIMEOUT and DEBUGINFOD_MAXTIME is limited there.
  static Result<std::shared_ptr<Debuginfod>> open();
  ~Debuginfod();
  Debuginfod(const Debuginfod&) = delete;
  Debuginfod& operator=(const Debuginfod&) = delete;

  /// The debug file of the program with this build-id (hex), or an invalid descriptor. After three questions
  /// without an answer in time no more are asked. What comes is not trusted: check its build-id.
  UniqueFd find(const std::string& build_id);

 private:
  struct Library;
  explicit Debuginfod(std::unique_ptr<Library> library);
  std::unique_ptr<Library> library_;
  int unanswered_ = 0;
};

}  // namespace looptrace
