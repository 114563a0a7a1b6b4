// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "targets/container.h"
#include "targets_fake_proc.h"

namespace looptrace {
namespace {

const std::string kId = "5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d";
const std::string kOuter = "00000000000000000000000000000000000000000000000000000000000000ff";
const std::string kUid = "0f5c1d2e-1111-2222-3333-444455556666";
const std::string kUnderscored = "0f5c1d2e_1111_2222_3333_444455556666";
const std::string kStaticUid = "0f5c1d2e111122223333444455556666";

struct Case {
  std::string path;
  std::string id, engine, pod_uid, unit;
};

TEST(Container, ReadsThePathsOfTheEngines) {
  const Case cases[] = {
      {"/docker/" + kId, kId, "docker", "", ""},
      {"/system.slice/docker-" + kId + ".scope", kId, "docker", "", ""},
      {"/system.slice/containerd.service", "", "", "", "containerd.service"},
      {"/k8s.io/" + kId, kId, "containerd", "", ""},
      {"/system.slice/nerdctl-" + kId + ".scope", kId, "containerd", "", ""},
      {"/machine.slice/libpod-" + kId + ".scope", kId, "podman", "", ""},
      {"/machine.slice/libpod-" + kId + ".scope/container", kId, "podman", "", ""},
      {"/libpod_parent/libpod-" + kId, kId, "podman", "", ""},
      {"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + kId + ".scope/container", kId,
       "podman", "", "user@1000.service"},
      {"/machine.slice/libpod-conmon-" + kId + ".scope", "", "", "", "libpod-conmon-" + kId + ".scope"},
      {"/kubepods/burstable/pod" + kUid + "/" + kId, kId, "", kUid, ""},
      {"/kubepods/pod" + kUid + "/" + kId, kId, "", kUid, ""},
      {"/kubepods/besteffort/pod" + kStaticUid + "/" + kId, kId, "", kStaticUid, ""},
      {"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + kUnderscored +
           ".slice/cri-containerd-" + kId + ".scope",
       kId, "containerd", kUid, ""},
      {"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + kUnderscored + ".slice/crio-" +
           kId + ".scope",
       kId, "cri-o", kUid, ""},
      {"/kubepods.slice/kubepods-pod" + kUnderscored + ".slice/docker-" + kId + ".scope", kId, "docker", kUid,
       ""},
      {"/system.slice/containerd.service/kubepods-burstable-pod" + kUnderscored +
           ".slice:cri-containerd:" + kId,
       kId, "containerd", kUid, "containerd.service"},
      {"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + kUnderscored +
           ".slice/cri-containerd-" + kId + ".scope",
       kId, "containerd", kUid, ""},
      // kind: a node in a container; what counts is the innermost
      {"/docker/" + kOuter + "/kubelet/kubepods/pod" + kUid + "/" + kId, kId, "", kUid, ""},
      {"/docker/" + kOuter + "/system.slice/nginx.service", kOuter, "docker", "", "nginx.service"},
      {"/system.slice/nginx.service", "", "", "", "nginx.service"},
      {"/system.slice/system-getty.slice/getty@tty1.service", "", "", "", "getty@tty1.service"},
      {"/user.slice/user-0.slice/session-3.scope", "", "", "", "session-3.scope"},
      {"/", "", "", "", ""},
      {"", "", "", "", ""},
      {"/docker/" + kId.substr(1), "", "", "", ""},
      {"/docker/" + kId + "0", "", "", "", ""},
      {"/docker/G" + kId.substr(1), "", "", "", ""},
      {"/podman-pod-" + kId, "", "", "", ""},
      {"/pod-of-mine/podcast", "", "", "", ""},
  };
  for (const Case& c : cases) {
    const ContainerFacts facts = container_from_cgroup(c.path);
    EXPECT_EQ(facts.id, c.id) << c.path;
    EXPECT_EQ(facts.engine, c.engine) << c.path;
    EXPECT_EQ(facts.pod_uid, c.pod_uid) << c.path;
    EXPECT_EQ(facts.unit, c.unit) << c.path;
  }
}

TEST(Container, LooksThroughAllHierarchies) {
  const auto facts = container_of(
      parse_cgroups("9:name=systemd:/system.slice/docker.service\n4:memory:/docker/" + kId + "\n0::/\n"));
  EXPECT_EQ(facts.id, kId);
  EXPECT_EQ(facts.engine, "docker");
  EXPECT_EQ(facts.unit, "docker.service");
}

TEST(Container, FindsTheNamesThatTheKubeletGave) {
  FakeProc directory;
  directory.link("web-7d9_shop_nginx-" + kId + ".log", "/var/log/pods/x");
  directory.link("other_shop_redis-" + kOuter + ".log", "/var/log/pods/y");
  const ContainerInfo info = to_container_info({kId, "containerd", kUid, ""}, directory.root());
  EXPECT_EQ(info.id, kId);
  EXPECT_EQ(info.k8s_pod, "web-7d9");
  EXPECT_EQ(info.k8s_namespace, "shop");
  EXPECT_EQ(info.k8s_container, "nginx");

  EXPECT_EQ(to_container_info({kId, "docker", "", ""}, directory.root()).k8s_pod, "") << "not in a pod";
  EXPECT_EQ(to_container_info({kId, "containerd", kUid, ""}, "/nonexistent").k8s_pod, "");
}

TEST(Container, FindsThePodByItsLogDirectoryToo) {
  FakeProc directory;
  directory.write("shop_web-7d9_" + kUid + "/nginx/0.log", "");
  directory.write("shop_two-7d9_" + kStaticUid + "/app/0.log", "");
  directory.write("shop_two-7d9_" + kStaticUid + "/sidecar/0.log", "");
  const ContainerInfo info =
      to_container_info({kId, "containerd", kUid, ""}, "/nonexistent", directory.root());
  EXPECT_EQ(info.k8s_namespace, "shop");
  EXPECT_EQ(info.k8s_pod, "web-7d9");
  EXPECT_EQ(info.k8s_container, "nginx");
  const ContainerInfo two = to_container_info({kId, "", kStaticUid, ""}, "/nonexistent", directory.root());
  EXPECT_EQ(two.k8s_pod, "two-7d9");
  EXPECT_EQ(two.k8s_container, "") << "one of two";
}

}  // namespace
}  // namespace looptrace
