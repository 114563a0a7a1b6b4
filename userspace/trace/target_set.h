// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "bpf/engine.h"
#include "targets/procfs.h"
#include "targets/selector.h"

namespace looptrace {

/// The processes that are traced now, kept equal here and in the kernel. Where every process is one, nothing
/// is kept. One thread's.
class TargetSet {
 public:
  /// The kernel holds no more targets: told of the first that it has no room for, and of each after it.
  using OnFull = std::function<void(const std::string& why)>;
  TargetSet(Engine& engine, ProcFs procfs, Matcher& matcher, bool every_process, OnFull on_full)
      : engine_(engine),
        procfs_(std::move(procfs)),
        matcher_(matcher),
        every_process_(every_process),
        on_full_(std::move(on_full)) {}

  /// Who matches now. Those that no longer do are let go: while the hooks were detached nobody told of their
  /// end.
  Result<void> take();

  bool any() const { return every_process_ || !matches_.empty(); }
  /// They were named by their ids, and all have ended: no more can come.
  bool ended() const { return matcher_.is_fixed() && matches_.empty(); }

  /// A process started, called exec or changed what selectors look at: is it a target now?
  bool changed(uint32_t tgid);
  void exited(uint32_t tgid) { matches_.erase(tgid); }

  /// A thread that polls: was it asked for? Threads come and take names later than their process was looked
  /// at, which is done anew before the answer is no.
  bool selects(uint32_t tgid, uint32_t tid);

  /// There may be targets that no event told of: a new one may have forked before it was known to be one, and
  /// events can be lost. They are looked for in /proc by the next rescan().
  void suspect_more() { rescan_ = true; }
  /// Once a second at most, where suspect_more() has asked for it. True if it found some.
  bool rescan(uint64_t now_ns);

 private:
  bool consider(uint32_t tgid);

  Engine& engine_;
  ProcFs procfs_;
  Matcher& matcher_;
  const bool every_process_;
  const OnFull on_full_;
  std::unordered_map<uint32_t, Match> matches_;  // by tgid
  bool rescan_ = false;
  uint64_t last_rescan_ns_ = 0;
};

}  // namespace looptrace
