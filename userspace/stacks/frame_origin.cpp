// SPDX-License-Identifier: Apache-2.0
#include "stacks/frame_origin.h"

#include <algorithm>
#include <array>

namespace looptrace {
namespace {

using std::string_view;

template <size_t N>
bool has_prefix(string_view text, const std::array<string_view, N>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](string_view p) { return text.starts_with(p); });
}

bool contains(string_view text, string_view part) { return text.find(part) != string_view::npos; }

// "python3.11", "python", "pypy3.10", "node": not "python-server".
bool is_interpreter(string_view name) {
  for (const string_view base : {"python", "pypy"})
    if (name.starts_with(base) &&
        name.substr(base.size()).find_first_not_of("0123456789.dt") == string_view::npos)
      return true;
  return name == "node" || name == "nodejs";
}

constexpr std::array<string_view, 22> kRuntimeObjects = {
    "libc.so", "libc-",        "libpthread",    "libm.so",      "libm-",    "libdl.so",
    "libdl-",  "librt.so",     "librt-",        "libresolv.so", "ld-linux", "ld-musl",
    "ld-2.",   "libstdc++.so", "libgcc_s.so",   "libpython",    "libpypy",  "libnode.so",
    "libc++",  "libjvm.so",    "libcoreclr.so", "libclrjit.so"};

// The crates of Rust's standard library that code of programs is inlined from.
constexpr std::array<string_view, 3> kRustLibraries = {"library/core/src/", "library/alloc/src/",
                                                       "library/std/src/"};

// As the toolchain of rust-lang.org has them (its own objects say so relative to /rustc/HASH), with its
// sources installed, and as Debian builds it.
bool is_rusts_own(string_view file) {
  return file.starts_with("/rustc/") || contains(file, "/rustlib/src/") ||
         file.starts_with("/usr/src/rustc-") || has_prefix(file, kRustLibraries);
}

constexpr std::array<string_view, 6> kSystemDirectories = {"/usr/lib/", "/usr/lib64/", "/usr/lib32/",
                                                           "/lib/",     "/lib64/",     "/usr/libexec/"};

}  // namespace

FrameOrigin module_origin(string_view path, bool program) {
  if (path.starts_with("[vdso") || path.starts_with("[vsyscall")) return FrameOrigin::runtime;
  constexpr string_view kDeleted = " (deleted)";
  if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
  const string_view name = path.substr(path.rfind('/') + 1);
  if (program) return is_interpreter(name) ? FrameOrigin::runtime : FrameOrigin::application;
  if (has_prefix(name, kRuntimeObjects)) return FrameOrigin::runtime;
  // The interpreter's own extension modules.
  if (contains(path, "/lib-dynload/")) return FrameOrigin::runtime;
  if (has_prefix(path, kSystemDirectories) || path.starts_with("/usr/local/lib/") ||
      path.starts_with("/nix/store/") || contains(path, "/site-packages/") ||
      contains(path, "/dist-packages/") || contains(path, "/node_modules/"))
    return FrameOrigin::library;
  return FrameOrigin::application;
}

FrameOrigin java_origin(string_view type) {
  constexpr std::array<string_view, 6> kJdk = {"java.", "javax.", "jdk.", "sun.", "com.sun.", "[L"};
  constexpr std::array<string_view, 17> kLibraries = {"io.netty.",
                                                      "io.vertx.",
                                                      "io.undertow.",
                                                      "io.grpc.",
                                                      "io.micronaut.",
                                                      "io.quarkus.",
                                                      "reactor.",
                                                      "akka.",
                                                      "org.springframework.",
                                                      "org.apache.",
                                                      "org.eclipse.",
                                                      "org.jboss.",
                                                      "org.hibernate.",
                                                      "scala.",
                                                      "kotlin.",
                                                      "kotlinx.",
                                                      "com.google.common."};
  if (has_prefix(type, kJdk)) return FrameOrigin::runtime;
  return has_prefix(type, kLibraries) ? FrameOrigin::library : FrameOrigin::application;
}

FrameOrigin source_origin(string_view file, FrameOrigin of_module) {
  if (of_module != FrameOrigin::application) return of_module;
  if (contains(file, "/include/c++/") || is_rusts_own(file) || file.starts_with("node:"))
    return FrameOrigin::runtime;
  // Cargo's registry is in CARGO_HOME: ~/.cargo, in the official images /usr/local/cargo.
  if (file.starts_with("/usr/include/") || contains(file, "cargo/registry/src/") ||
      contains(file, "/node_modules/") || contains(file, "/site-packages/"))
    return FrameOrigin::library;
  return of_module;
}

}  // namespace looptrace
