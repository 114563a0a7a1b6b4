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

// "python3.11", "python", "pypy3.10", "php8.2", "luajit-2.1", "node": not "python-server".
bool is_interpreter(string_view name) {
  for (const string_view base : {"python", "pypy", "ruby", "php-fpm", "php"})
    if (name.starts_with(base) &&
        name.substr(base.size()).find_first_not_of("0123456789.dt-") == string_view::npos)
      return true;
  return name == "node" || name == "nodejs" || name == "luajit" || name.starts_with("luajit-2");
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

// The first elements of the import paths of Go's standard library.
constexpr std::array<string_view, 50> kGoPackages = {
    "archive",  "bufio",   "builtin", "bytes",    "cmp",      "compress", "container", "context", "crypto",
    "database", "debug",   "embed",   "encoding", "errors",   "expvar",   "flag",      "fmt",     "go",
    "hash",     "html",    "image",   "index",    "internal", "io",       "iter",      "log",     "maps",
    "math",     "mime",    "net",     "os",       "path",     "plugin",   "reflect",   "regexp",  "runtime",
    "slices",   "sort",    "strconv", "strings",  "structs",  "sync",     "syscall",   "testing", "text",
    "time",     "unicode", "unique",  "unsafe",   "vendor"};

bool is_go_source(string_view file) { return file.ends_with(".go") || file.ends_with(".s"); }

// GOROOT/src/net/http/server.go, where GOROOT is /usr/local/go, /usr/lib/go-1.19, ~/sdk/go1.22.0, a toolchain
// in the module cache or .../go/1.21.0/x64; with -trimpath net/http/server.go.
bool is_gos_own(string_view file) {
  if (!is_go_source(file)) return false;
  if (file.starts_with("/")) {
    constexpr string_view kSource = "/src/";
    const size_t at = file.find(kSource);
    if (at == string_view::npos) return false;
    const string_view root = file.substr(0, at);
    if (!contains(root, "/go/") && !contains(root, "/toolchain@") &&
        !root.substr(root.rfind('/') + 1).starts_with("go"))
      return false;
    file.remove_prefix(at + kSource.size());
  }
  const size_t end = file.find('/');
  return end != string_view::npos &&
         std::find(kGoPackages.begin(), kGoPackages.end(), file.substr(0, end)) != kGoPackages.end();
}

// A module in GOMODCACHE; with -trimpath github.com/gorilla/mux@v1.8.0/mux.go.
bool is_of_go_module(string_view file) {
  return is_go_source(file) &&
         (contains(file, "/pkg/mod/") || (!file.starts_with("/") && contains(file, "@v")));
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
  if (contains(file, "/include/c++/") || is_rusts_own(file) || is_gos_own(file) || file.starts_with("node:"))
    return FrameOrigin::runtime;
  // Cargo's registry is in CARGO_HOME: ~/.cargo, in the official images /usr/local/cargo.
  if (file.starts_with("/usr/include/") || contains(file, "cargo/registry/src/") || is_of_go_module(file) ||
      contains(file, "/node_modules/") || contains(file, "/site-packages/"))
    return FrameOrigin::library;
  return of_module;
}

}  // namespace looptrace
