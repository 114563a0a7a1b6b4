// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/sha256.h"
#include "record/format.h"
#include "record/redact.h"

namespace looptrace {
namespace {

Stall sample() {
  Stall stall;
  stall.on_cpu_ns = 1;
  stall.runqueue_ns = 2;
  stall.blocked_ns = 3;
  stall.duration_ns = 6;
  stall.process.executable = "/opt/secret/bin/server";
  stall.process.command_line = "server --password hunter2";
  stall.process.cgroup = "/kube.slice/pod-1/abc";
  stall.cause_detail = "read on file /var/secret dir/ledger.db";
  Frame frame;
  frame.function = "load";
  frame.file = "/opt/secret/app.py";
  frame.module = "app";
  stall.culprit = frame;
  TaskInfo& task = stall.task.emplace();
  task.name = "job";
  task.file = frame.file;
  task.created_at = {"main", "/opt/secret/main.py", 3};
  Stack stack;
  stack.frames = {frame};
  stall.stacks = {stack};
  Wait file, tcp;
  file.held_by.emplace();
  file.held_by->frames.push_back(frame);
  file.target.emplace();
  file.target->kind = "file";
  file.target->path = "/var/secret dir/ledger.db";
  tcp.target.emplace();
  tcp.target->kind = "tcp";
  tcp.target->local = "10.1.2.3:40112";
  tcp.target->peer = "[fd00::7]:5432";
  stall.waits = {file, tcp};
  return stall;
}

TEST(Redact, PathsKeepTheirLastPart) {
  const Stall stall = Redactor({.paths = true}).apply(sample());
  EXPECT_EQ(stall.process.executable, "sha:" + stall.process.executable.substr(4, 8) + "/server");
  EXPECT_TRUE(stall.process.cgroup.ends_with("/abc"));
  EXPECT_TRUE(stall.culprit->file.starts_with("sha:"));
  EXPECT_TRUE(stall.culprit->file.ends_with("/app.py"));
  EXPECT_EQ(stall.culprit->file, stall.stacks[0].frames[0].file) << "one directory, one hash";
  EXPECT_EQ(stall.culprit->module, "app");
  EXPECT_EQ(stall.waits[0].held_by->frames[0].file, stall.culprit->file);
  EXPECT_EQ(stall.task->file, stall.culprit->file);
  EXPECT_EQ(stall.task->created_at->file, stall.culprit->file.substr(0, 12) + "/main.py");
  EXPECT_EQ(stall.task->name, "job") << "not a path";
  EXPECT_EQ(stall.cause_detail, "read on file " + stall.waits[0].target->path);
  EXPECT_EQ(stall.cause_detail.find("secret"), std::string::npos);
  EXPECT_EQ(stall_message(stall).find("secret"), std::string::npos);
  EXPECT_EQ(stall.waits[1].target->peer, "[fd00::7]:5432") << "not asked for";
  EXPECT_FALSE(stall.process.command_line.empty());
}

TEST(Redact, Arguments) {
  const Stall stall = Redactor({.args = true}).apply(sample());
  EXPECT_EQ(stall.process.command_line, "");
  EXPECT_EQ(stall.process.executable, "/opt/secret/bin/server");
}

TEST(Redact, AddressesKeepTheirPort) {
  Stall stall = sample();
  stall.cause_detail = "poll on tcp [fd00::7]:5432";
  stall = Redactor({.addresses = true}).apply(stall);
  EXPECT_EQ(stall.waits[1].target->local, "redacted:40112");
  EXPECT_EQ(stall.waits[1].target->peer, "redacted:5432");
  EXPECT_EQ(stall.cause_detail, "poll on tcp redacted:5432");
  EXPECT_EQ(stall.waits[0].target->path, "/var/secret dir/ledger.db");
}

TEST(Redact, TimesAndNamesStay) {
  const Stall stall = Redactor({.paths = true, .args = true, .addresses = true}).apply(sample());
  EXPECT_EQ(stall.on_cpu_ns + stall.runqueue_ns + stall.blocked_ns, stall.duration_ns);
  EXPECT_EQ(stall.culprit->function, "load");
}

TEST(Redact, NothingAskedNothingDone) {
  const Stall stall = Redactor({}).apply(sample());
  EXPECT_EQ(stall.cause_detail, sample().cause_detail);
  EXPECT_EQ(stall.process.executable, sample().process.executable);
  EXPECT_EQ(stall.waits[1].target->peer, sample().waits[1].target->peer);
}

TEST(Redact, WordsOfFreeText) {
  const Redactor redactor({.paths = true, .addresses = true});
  WarningRecord warning;
  const auto redact = [&](const char* text) {
    warning.message = text;
    return redactor.apply(warning).message;
  };
  EXPECT_EQ(redact("no names: 12:30 at 3.11.2, 7:5"), "no names: 12:30 at 3.11.2, 7:5");
  EXPECT_EQ(redact("connect to 10.0.0.7:5432, then 10.0.0.8"), "connect to redacted:5432, then redacted");
  EXPECT_EQ(redact("at ::1 or [::1]:80"), "at redacted or redacted:80");
  EXPECT_EQ(redact("cannot read /proc/77/maps: denied").find("/proc/77"), std::string::npos);
  EXPECT_TRUE(redact("cannot read /proc/77/maps: denied").ends_with("/maps: denied"));
  EXPECT_EQ(redact(""), "");
}

TEST(Redact, TheOtherRecords) {
  const Redactor redactor({.paths = true, .args = true});
  LoopRecord loop;
  loop.process = sample().process;
  EXPECT_EQ(redactor.apply(loop).process.command_line, "");
  EXPECT_TRUE(redactor.apply(loop).process.executable.starts_with("sha:"));
  LoopListing listing;
  listing.process = sample().process;
  EXPECT_TRUE(redactor.apply(listing).process.cgroup.starts_with("sha:"));
  StartRecord start;
  start.targets = {"exe=/opt/secret/*", "comm=web"};
  start = redactor.apply(start);
  EXPECT_EQ(start.targets[0].find("secret"), std::string::npos);
  EXPECT_EQ(start.targets[1], "comm=web");
}

TEST(Redact, IdsBecomeHashesThatOnlyTheKeyGives) {
  Stall stall;
  stall.container = {"3f4e9c0a", "shop", "web-5d9c7b6f4-x2x7k", "app"};
  stall.process.cgroup = "/kubepods/pod0f5c/3f4e9c0a";
  stall.service = "web";
  RedactRules rules;
  rules.ids = true;
  rules.key = "0123456789abcdef";
  EXPECT_TRUE(rules.any());
  const Stall once = Redactor(rules).apply(stall), again = Redactor(rules).apply(stall);
  EXPECT_EQ(once.container.id.size(), 16u);
  EXPECT_NE(once.container.id, stall.container.id);
  EXPECT_NE(once.container.k8s_pod, stall.container.k8s_pod);
  EXPECT_EQ(once.container.id, again.container.id) << "the same thing is recognised";
  EXPECT_EQ(once.process.cgroup.find("3f4e"), std::string::npos);
  EXPECT_EQ(once.container.k8s_namespace.size(), 16u);
  EXPECT_EQ(once.container.k8s_container.size(), 16u);
  EXPECT_EQ(once.service, "web") << "is named by whoever knows what it comes from";
  rules.key = "fedcba9876543210";
  EXPECT_NE(Redactor(rules).apply(stall).container.id, once.container.id);
  LoopRecord loop;
  loop.container = stall.container;
  EXPECT_NE(Redactor(rules).apply(loop).container.id, stall.container.id);
  StartRecord start;
  start.targets = {"container=3f4e9c", "cgroup=/kubepods/pod0f5c", "comm=web"};
  start = Redactor(rules).apply(start);
  EXPECT_EQ(start.targets[0], "container=" + keyed_hash(rules.key, "3f4e9c"));
  EXPECT_EQ(start.targets[1].find("0f5c"), std::string::npos);
  EXPECT_EQ(start.targets[2], "comm=web");
}

}  // namespace
}  // namespace looptrace
