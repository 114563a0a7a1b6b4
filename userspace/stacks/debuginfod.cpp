// SPDX-License-Identifier: Apache-2.0
#include "stacks/debuginfod.h"

#include <dlfcn.h>

#include <cerrno>
#include <cstdlib>

namespace looptrace {
namespace {

constexpr const char* kWithoutData = "5";  // seconds without 100 KB
constexpr const char* kWhole = "30";       // seconds for one file
constexpr int kMaxUnanswered = 3;

}  // namespace

// The part of elfutils/debuginfod.h that is used; the same since 0.178.
struct Debuginfod::Library {
  struct Client;
  void* handle = nullptr;
  Client* client = nullptr;
  Client* (*begin)() = nullptr;
  void (*end)(Client*) = nullptr;
  /// A build-id of length 0 is text in hex. Returns a descriptor, or a negative errno.
  int (*find_debuginfo)(Client*, const unsigned char* build_id, int length, char** path) = nullptr;

  template <typename Function>
  bool load(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(handle, name));
    return function != nullptr;
  }
  ~Library() {
    if (client) end(client);
    if (handle) dlclose(handle);
  }
};

Debuginfod::Debuginfod(std::unique_ptr<Library> library) : library_(std::move(library)) {}
Debuginfod::~Debuginfod() = default;

Result<std::shared_ptr<Debuginfod>> Debuginfod::open() {
  const char* urls = std::getenv("DEBUGINFOD_URLS");
  if (!urls || !*urls) {
    return Error{"--debuginfod asks the servers that DEBUGINFOD_URLS names, and it names none", 0,
                 Fault::usage};
  }
  setenv("DEBUGINFOD_TIMEOUT", kWithoutData, 0);
  setenv("DEBUGINFOD_MAXTIME", kWhole, 0);
  auto library = std::make_unique<Library>();
  // Never unloaded: libcurl and the TLS library below it keep state of their own, which would be lost with
  // them.
  library->handle = dlopen("libdebuginfod.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!library->handle || !library->load(library->begin, "debuginfod_begin") ||
      !library->load(library->end, "debuginfod_end") ||
      !library->load(library->find_debuginfo, "debuginfod_find_debuginfo")) {
    return Error{"--debuginfod needs elfutils' libdebuginfod.so.1; install libdebuginfod1", 0,
                 Fault::unsupported};
  }
  library->client = library->begin();
  if (!library->client) return Error{"start a debuginfod client", errno};
  return std::shared_ptr<Debuginfod>(new Debuginfod(std::move(library)));
}

UniqueFd Debuginfod::find(const std::string& build_id) {
  if (build_id.empty() || unanswered_ >= kMaxUnanswered) return {};
  const int fd = library_->find_debuginfo(
      library_->client, reinterpret_cast<const unsigned char*>(build_id.c_str()), 0, nullptr);
  if (fd >= 0) {
    unanswered_ = 0;
    return UniqueFd(fd);
  }
  // That a server does not have the file is an answer.
  if (fd == -ENOENT)
    unanswered_ = 0;
  else
    ++unanswered_;
  return {};
}

}  // namespace looptrace
