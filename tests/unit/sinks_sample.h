// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "record/stall.h"

namespace looptrace {

inline Frame frame(FrameKind kind, const std::string& function, const std::string& file, int line,
                   const std::string& module, FrameOrigin origin) {
  Frame f;
  f.kind = kind;
  f.function = function;
  f.file = file;
  f.line = line;
  f.module = module;
  f.origin = origin;
  return f;
}

/// The stall of the contract's example, without its stacks.
inline Stall contract_stall() {
  Stall s;
  s.id = "n1-5f3a-42";
  s.time_ns = 1'795'424'400'123'456'789;
  s.duration_ns = 205'585'000;
  s.threshold_ns = 50'000'000;
  s.on_cpu_ns = 1'200'000;
  s.runqueue_ns = 85'000;
  s.blocked_ns = 204'300'000;
  s.process = {101,
               "2026-11-23T08:00:00.000000000Z",
               "server",
               "/usr/bin/python3.11",
               "python3 app.py",
               "cpython 3.11.2",
               "/system.slice/app.service"};
  s.thread_id = 101;
  s.thread_name = "server";
  s.container = {"3f4e9c0a", "shop", "web-1", "app"};
  s.loop.kind = "epoll";
  s.loop.fd = 4;
  s.cause = Cause::network;
  s.confidence = Confidence::certain;
  s.cause_detail = "poll on tcp 127.0.0.1:5432";
  s.segments = 9;
  s.longest_segment_ns = 203'100'000;
  s.culprit = frame(FrameKind::python, "run_query", "/srv/app.py", 7, "app", FrameOrigin::application);
  Wait network;
  network.cause = Cause::network;
  network.syscall = "poll";
  network.count = 8;
  network.duration_ns = 204'200'000;
  network.longest_ns = 203'100'000;
  network.target.emplace();
  network.target->kind = "tcp";
  network.target->fd = 8;
  network.target->local = "127.0.0.1:40112";
  network.target->peer = "127.0.0.1:5432";
  network.woken_by = Peer{77, 77, "postgres"};
  network.stack = 0;
  s.waits = {network};
  return s;
}

}  // namespace looptrace
