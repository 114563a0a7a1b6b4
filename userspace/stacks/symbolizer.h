// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "record/frame.h"
#include "stacks/module.h"

namespace looptrace {

/// Turns addresses into frames. Results are cached per object and address. Not thread-safe.
class Symbolizer {
 public:
  struct Options {
    bool source_lines = true;           ///< DWARF lines and inlined frames for native code
    size_t cache_bytes = 8u << 20;      ///< resolved addresses
    size_t dwarf_bytes = 32u << 20;     ///< DWARF kept open between calls
    size_t perf_map_bytes = 64u << 20;  ///< perf maps and jitdumps of all processes
  };
  /// What is asked of a user address. Lines and inlined frames cost most: for what is printed only.
  /// Where nothing may wait, those of a file whose DWARF was not read yet are left out, and the file is
  /// wanted.
  enum class Detail { name, line_if_read, line };

  explicit Symbolizer(Options options);
  ~Symbolizer();

  /// Appends the frames of one user address: inlined ones first, the real function last. A return address
  /// is looked up at address - 1. Addresses in no file try the process's jit-PID.dump, if it has mapped
  /// one, and its perf map (/tmp/perf-PID.map in its mount namespace), both owned by root or by the process's
  /// user, and else give a frame with no name.
  /// Frame::offset is the address that was looked up: inside the call for a return address. Frame::guessed
  /// is set where neither a file's unwind table nor a name vouches for there being code at all.
  void user(pid_t pid, const ProcessModules& modules, uint64_t address, bool is_return_address,
            std::vector<Frame>& out, Detail detail = Detail::line);

  /// What user() would read first of this file is read by read_on(). Itself it reads nothing.
  void want(const std::shared_ptr<ElfObject>& object);
  /// Reads another piece of what is wanted: half a millisecond of lines, or one file's symbols. Call while
  /// there is nothing else to do.
  void read_on();
  bool has_more_to_read() const;

  /// Appends the frame of one kernel address ([module] in Frame::module where it is in one).
  void kernel(uint64_t address, std::vector<Frame>& out);

  /// The kernel hides its addresses from us (kernel.kptr_restrict, CAP_SYSLOG): kernel() names nothing.
  bool kernel_symbols_hidden();

  /// As in Options, from now on.
  void set_source_lines(bool on);
  void drop_cache();

  size_t bytes() const;  ///< memory held, apart from the ElfObjects

  /// Drops what is cached for a process that ended or called exec.
  void forget(pid_t pid);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// C++ (Itanium) and Rust (legacy and v0) names; anything else is returned as it is, and so are names made
/// to blow up when demangled.
std::string demangle(std::string_view mangled);

}  // namespace looptrace
