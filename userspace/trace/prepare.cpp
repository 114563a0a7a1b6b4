// SPDX-License-Identifier: Apache-2.0
#include "trace/prepare.h"

#include <signal.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <cerrno>

#include "base/host.h"
#include "bpf/features.h"

namespace looptrace {

namespace {

HookPolicy to_policy(HookMode mode) {
  switch (mode) {
    case HookMode::always:
      return HookPolicy::always;
    case HookMode::never:
      return HookPolicy::never;
    case HookMode::automatic:
      break;
  }
  return HookPolicy::automatic;
}

// The kernel has 4.3 KB for each loop from the start: as many as there may be, and no more. Each thread of a
// large host may be a loop, and some will come.
uint32_t enough_loops(bool everything) {
  const uint32_t threads = count_host_threads();
  return std::clamp<uint32_t>(threads + threads / 4, everything ? 2048 : 1024, 32768);
}

}  // namespace

Result<UniqueFd> take_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  signal(SIGPIPE, SIG_IGN);
  if (sigprocmask(SIG_BLOCK, &set, nullptr)) return Error{"block signals", errno};
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return Error{"receive signals", errno};
  return fd;
}

TraceConfig to_trace_config(const Options& options, const std::string& version,
                            std::vector<Capability> features) {
  TraceConfig config;
  config.engine.threshold_ns = options.threshold_ns;
  config.engine.hook = to_policy(options.hook);
  config.engine.stacks = options.stacks;
  const bool everything = options.targets.empty() || options.targets.all;
  config.engine.max_loops = options.max_loops.value_or(enough_loops(everything));
  if (options.ring_bytes) config.engine.ring_bytes = static_cast<uint32_t>(*options.ring_bytes);
  if (options.sample_hz) config.engine.sample_hz = *options.sample_hz;
  const TargetOptions& t = options.targets;
  config.selectors.pids.assign(t.pids.begin(), t.pids.end());
  config.selectors.tids.assign(t.tids.begin(), t.tids.end());
  config.selectors.comms = t.comms;
  config.selectors.exes = t.exes;
  config.selectors.cgroups = t.cgroups;
  config.selectors.containers = t.containers;
  config.selectors.all = t.all;
  config.targets = t.describe();
  config.interval_ns = options.interval_ns;
  config.duration_ns = options.duration_ns;
  config.max_stalls = options.max_events;
  config.source_lines = options.source_lines;
  config.version = version;
  for (const Capability& c : features) {
    if (c.name == "fentry") config.engine.try_fentry = c.available;
  }
  config.features = std::move(features);
  return config;
}

Result<std::vector<Capability>> usable_features(HookMode hook) {
  auto features = probe_features();
  if (auto r = require_features(features); !r) return r.error();
  const auto lacks = [&](const char* name) {
    return std::any_of(features.begin(), features.end(),
                       [&](const Capability& c) { return c.name == name && !c.available; });
  };
  // The polls' own tracepoints: without them a loop that never sleeps would look like one long stall.
  if (hook == HookMode::always && lacks("fentry") && lacks("tracefs")) {
    return Error{
        "--hook always needs the polls' tracepoints, and tracefs is not mounted; "
        "mount -t tracefs nodev /sys/kernel/tracing, or use --hook auto",
        0, Fault::unsupported};
  }
  return features;
}

}  // namespace looptrace
