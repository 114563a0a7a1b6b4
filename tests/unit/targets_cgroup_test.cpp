// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "targets/cgroup.h"
#include "targets/throttle.h"
#include "targets_fake_proc.h"

namespace looptrace {
namespace {

constexpr const char* kHybrid =
    "25 20 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    "27 25 0:24 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n"
    "28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "29 25 0:26 /kube /mnt/with\\040blank rw - cgroup cgroup rw,memory,release_agent=/x\n";

TEST(Cgroups, ParsesBothVersions) {
  const auto found = parse_cgroups("4:memory:/a:b\n2:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/e\nrubbish\n\n");
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].path, "/a:b") << "a path may hold colons";
  EXPECT_TRUE(found[1].has_controller("cpuacct"));
  EXPECT_FALSE(found[1].has_controller("cpua"));
  EXPECT_TRUE(found[3].is_v2());
}

TEST(Cgroups, ChoosesTheMostTellingPath) {
  const auto choose = [](const char* text) { return choose_cgroup(parse_cgroups(text)); };
  EXPECT_EQ(choose("0::/system.slice/a.service\n"), "/system.slice/a.service");
  EXPECT_EQ(choose("4:memory:/docker/1\n1:name=systemd:/x\n0::/y\n"), "/y");
  EXPECT_EQ(choose("4:memory:/docker/1\n1:name=systemd:/x\n0::/\n"), "/docker/1");
  EXPECT_EQ(choose("9:pids:/a/very/long/path\n2:cpu:/c\n0::/\n"), "/c");
  EXPECT_EQ(choose("0::/\n"), "/");
  EXPECT_EQ(choose(""), "");
}

TEST(Cgroups, ChildrenAreInside) {
  EXPECT_TRUE(is_in_cgroup("/a/b", "/a"));
  EXPECT_TRUE(is_in_cgroup("/a", "/a"));
  EXPECT_TRUE(is_in_cgroup("/a", "/a/"));
  EXPECT_TRUE(is_in_cgroup("/a", "/"));
  EXPECT_FALSE(is_in_cgroup("/ab", "/a"));
  EXPECT_FALSE(is_in_cgroup("/", "/a"));
}

TEST(CgroupMounts, ReadsMountinfo) {
  const CgroupMounts mounts = CgroupMounts::parse(kHybrid);
  ASSERT_EQ(mounts.all().size(), 4u);
  ASSERT_TRUE(mounts.v2());
  EXPECT_EQ(mounts.v2()->mount_point, "/sys/fs/cgroup/unified");
  ASSERT_TRUE(mounts.with_controller("cpu"));
  EXPECT_EQ(mounts.with_controller("cpu")->directory("/x"), "/sys/fs/cgroup/cpu,cpuacct/x");
  EXPECT_EQ(mounts.with_controller("cpu")->directory("/"), "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(mounts.with_controller("name=systemd")->mount_point, "/sys/fs/cgroup/systemd");
  EXPECT_EQ(mounts.with_controller("memory")->directory("/kube/pod/c"), "/mnt/with blank/pod/c");
  EXPECT_EQ(mounts.with_controller("memory")->directory("/other"), std::nullopt);
  EXPECT_EQ(mounts.with_controller("pids"), nullptr);
}

TEST(Throttle, ReadsBothVersions) {
  const auto v1 = parse_cpu_stat("nr_periods 10\nnr_throttled 3\nthrottled_time 4500000\n");
  ASSERT_TRUE(v1);
  EXPECT_EQ(v1->count, 3u);
  EXPECT_EQ(v1->ns, 4500000u);
  const auto v2 =
      parse_cpu_stat("usage_usec 9\nnr_periods 10\nnr_throttled 2\nthrottled_usec 77\nnr_bursts 0\n");
  ASSERT_TRUE(v2);
  EXPECT_EQ(v2->count, 2u);
  EXPECT_EQ(v2->ns, 77000u);
  EXPECT_FALSE(parse_cpu_stat("usage_usec 9\nuser_usec 1\n")) << "the v2 root has no quota";
}

TEST(Throttle, SumsTheGroupsAboveAThread) {
  FakeProc fake;
  fake.add({.pid = 42, .cgroup = "3:cpu,cpuacct:/pod/box\n0::/elsewhere\n"});
  const std::string cpu = fake.root() + "/cg";
  fake.write("cg/pod/box/cpu.stat", "nr_throttled 1\nthrottled_time 100\n");
  fake.write("cg/pod/cpu.stat", "nr_throttled 2\nthrottled_time 10\n");
  fake.write("cg/cpu.stat", "nr_throttled 0\nthrottled_time 0\n");

  const CgroupMounts mounts({{"cpu,cpuacct", cpu, "/"}});
  const auto source = ThrottleSource::of_thread(fake.procfs(), mounts, 42);
  EXPECT_EQ(source.files().size(), 3u);
  EXPECT_EQ(source.files().front(), cpu + "/pod/box/cpu.stat");
  const auto sum = source.read();
  ASSERT_TRUE(sum);
  EXPECT_EQ(sum->count, 3u);
  EXPECT_EQ(sum->ns, 110u);

  EXPECT_TRUE(ThrottleSource::of_thread(fake.procfs(), mounts, 99).empty());
  EXPECT_TRUE(ThrottleSource::of_thread(fake.procfs(), CgroupMounts(), 42).empty());
}

TEST(Throttle, UsesV2WhereTheCpuControllerIsThere) {
  FakeProc fake;
  fake.add({.pid = 42, .cgroup = "0::/a\n"});
  fake.write("cg/a/cpu.stat", "usage_usec 1\nnr_throttled 4\nthrottled_usec 5\n");
  fake.write("cg/cpu.stat", "usage_usec 1\n");
  const CgroupMounts mounts({{"", fake.root() + "/cg", "/"}});
  const auto sum = ThrottleSource::of_thread(fake.procfs(), mounts, 42).read();
  ASSERT_TRUE(sum);
  EXPECT_EQ(sum->count, 4u);
  EXPECT_EQ(sum->ns, 5000u);
}

}  // namespace
}  // namespace looptrace
