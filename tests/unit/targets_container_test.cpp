// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "targets/container.h"
#include "targets_fake_proc.h"

namespace looptrace {
namespace {

const std::string kId = "5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d";
const std::string kOuter = "00000000000000000000000000000000000000000000000000000000000000ff";
const std::string kUid = "0f5c1d2e-1111-2222-3333-444455556666";
const std::string kUnderscored = "0f5c1d2e_1111_2222_3333_444455556666";
const std::string kVolatile = "5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d5f3a0c9d000000aa";
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

std::string oci(const std::string& annotations) {
  return R"({"ociVersion":"1.1.0","process":{"args":["x"]},"annotations":{)" + annotations + "}}";
}

ContainerInfo below(const FakeProc& node, const ContainerFacts& facts) {
  return to_container_info(facts, {node.root()});
}

void expect_pod(const ContainerInfo& info, const std::string& pod, const std::string& name_space,
                const std::string& container) {
  EXPECT_EQ(info.k8s_pod, pod);
  EXPECT_EQ(info.k8s_namespace, name_space);
  EXPECT_EQ(info.k8s_container, container);
}

TEST(Container, FindsTheNamesThatTheKubeletGave) {
  FakeProc node;
  node.link("var/log/containers/web-7d9_shop_nginx-" + kId + ".log", "/var/log/pods/x");
  node.link("var/log/containers/other_shop_redis-" + kOuter + ".log", "/var/log/pods/y");
  const ContainerInfo info = below(node, {kId, "containerd", kUid, ""});
  EXPECT_EQ(info.id, kId);
  expect_pod(info, "web-7d9", "shop", "nginx");

  expect_pod(below(node, {kId, "docker", "", ""}), "", "", "");  // not in a pod
  expect_pod(to_container_info({kId, "containerd", kUid, ""}, {"/nonexistent"}), "", "", "");
  expect_pod(to_container_info({kId, "containerd", kUid, ""}, {"/nonexistent", node.root()}), "web-7d9",
             "shop", "nginx");
}

TEST(Container, FindsThePodByItsLogDirectoryToo) {
  FakeProc node;
  node.write("var/log/pods/shop_web-7d9_" + kUid + "/nginx/0.log", "");
  node.write("var/log/pods/shop_two-7d9_" + kStaticUid + "/app/0.log", "");
  node.write("var/log/pods/shop_two-7d9_" + kStaticUid + "/sidecar/0.log", "");
  expect_pod(below(node, {kId, "containerd", kUid, ""}), "web-7d9", "shop", "nginx");
  expect_pod(below(node, {kId, "", kStaticUid, ""}), "two-7d9", "shop", "");  // one of two
}

TEST(Container, ThePodsDirectoryTellsAnOnlyContainer) {
  FakeProc node;
  node.write("var/lib/kubelet/pods/" + kUid + "/containers/nginx/0a1b", "");
  expect_pod(below(node, {kId, "cri-o", kUid, ""}), "", "", "nginx");
  node.write("var/lib/kubelet/pods/" + kUid + "/containers/sidecar/0a1b", "");
  expect_pod(below(node, {kId, "cri-o", kUid, ""}), "", "", "");
}

TEST(Container, FindsTheNamesThatTheRuntimeWasGiven) {
  FakeProc node;
  node.write("run/containerd/io.containerd.runtime.v2.task/k8s.io/" + kId + "/config.json",
             oci(R"("io.kubernetes.cri.container-name":"app","io.kubernetes.cri.sandbox-name":"web-1",)"
                 R"("io.kubernetes.cri.sandbox-namespace":"shop")"));
  expect_pod(below(node, {kId, "containerd", kUid, ""}), "web-1", "shop", "app");
  expect_pod(below(node, {kId, "", kUid, ""}), "web-1", "shop", "app");  // cgroupfs does not name the engine

  node.write("run/containers/storage/overlay-containers/" + kOuter + "/userdata/config.json",
             oci(R"("io.kubernetes.container.name":"db","io.kubernetes.pod.name":"pg-0",)"
                 R"("io.kubernetes.pod.namespace":"data")"));
  expect_pod(below(node, {kOuter, "cri-o", kUid, ""}), "pg-0", "data", "db");
}

// As podman 4.3 writes it.
std::string storage(const std::string& id, const std::string& name) {
  return R"([{"id":")" + kOuter + R"(","names":["other"],"image":"9b90"},{"id":")" + id + R"(","names":[")" +
         name +
         R"("],"image":"9b90","layer":"1a2f","metadata":"{\"name\":\"inner\"}","created":"2026-11-25T22:54:36Z",)"
         R"("flags":{"MountLabel":"","ProcessLabel":""}}])";
}

TEST(Container, PodmanNamesItsContainers) {
  FakeProc node;
  node.write("var/lib/containers/storage/overlay-containers/containers.json", storage(kId, "shop-web"));
  node.write("run/containers/storage/overlay-containers/volatile-containers.json",
             storage(kVolatile, "shop-tmp"));
  const std::string machine = "/machine.slice/libpod-";
  const auto name_of = [&](const std::string& cgroup) {
    return below(node, container_from_cgroup(cgroup)).name;
  };
  EXPECT_EQ(name_of(machine + kId + ".scope"), "shop-web");
  EXPECT_EQ(name_of(machine + kVolatile + ".scope"), "shop-tmp");
  EXPECT_EQ(name_of(machine + "pod_1.slice/libpod-" + kOuter + ".scope/container"), "other");
  EXPECT_EQ(name_of(machine + kId.substr(1) + "0.scope"), "") << "one that it does not know";

  // A user's own are in that user's storage, and only there.
  const std::string user = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-";
  EXPECT_EQ(name_of(user + kId + ".scope/container"), "");
  node.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/srv/home/ann:/bin/sh\n");
  node.write("srv/home/ann/.local/share/containers/storage/vfs-containers/containers.json",
             storage(kId, "anns-web"));
  node.write("run/user/1000/containers/vfs-containers/volatile-containers.json",
             storage(kVolatile, "anns-tmp"));
  EXPECT_EQ(name_of(user + kId + ".scope/container"), "anns-web");
  EXPECT_EQ(name_of(user + kVolatile + ".scope"), "anns-tmp");
  EXPECT_EQ(name_of("/user.slice/user-1001.slice/user@1001.service/user.slice/libpod-" + kId + ".scope"), "");

  for (const char* text : {"[]", "{}", "[7,{\"id\":7}]", "not json", ""}) {
    node.write("var/lib/containers/storage/overlay-containers/containers.json", text);
    EXPECT_EQ(name_of(machine + kId + ".scope"), "") << text;
  }
  for (const char* names : {"\"web\"", "[]", "[7]", "[\"a b\"]"}) {
    node.write("var/lib/containers/storage/overlay-containers/containers.json",
               R"([{"id":")" + kId + R"(","names":)" + names + "}]");
    EXPECT_EQ(name_of(machine + kId + ".scope"), "") << names;
  }
}

TEST(Container, DockerAndNerdctlNameTheirContainers) {
  FakeProc node;
  node.write("var/lib/docker/containers/" + kId + "/config.v2.json",
             R"({"ID":"x","Name":"/shop-web-1","Config":{"Labels":{"com.docker.compose.service":"web"}}})");
  const ContainerInfo info = below(node, {kId, "docker", "", ""});
  EXPECT_EQ(info.name, "shop-web-1");
  expect_pod(info, "", "", "");
  node.write("var/lib/docker/containers/" + kOuter + "/config.v2.json",
             R"({"Name":"/k8s_app_web","Config":{"Labels":{"io.kubernetes.pod.name":"web-1",)"
             R"("io.kubernetes.pod.namespace":"shop","io.kubernetes.container.name":"app"}}})");
  expect_pod(below(node, {kOuter, "docker", kUid, ""}), "web-1", "shop", "app");

  FakeProc other;
  other.write("run/containerd/io.containerd.runtime.v2.task/default/" + kId + "/config.json",
              oci(R"("nerdctl/name":"search")"));
  EXPECT_EQ(below(other, {kId, "containerd", "", ""}).name, "search");
}

// A name that cannot be one is left out; none of these is waited for or read without end.
TEST(Container, HostileFilesNameNothing) {
  const auto file = [](const FakeProc& node) {
    return node.root() + "/var/lib/docker/containers/" + kId + "/config.v2.json";
  };
  const auto name_in = [&](const std::string& text) {
    FakeProc node;
    node.write("var/lib/docker/containers/" + kId + "/config.v2.json", text);
    return below(node, {kId, "docker", "", ""}).name;
  };
  EXPECT_EQ(name_in(R"({"Name":"/fine"})"), "fine");
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string(R"({"Name":7})"),
        std::string(R"({"Name":""})"), std::string(R"({"Name":"/"})"), std::string(R"({"Name":"a b"})"),
        std::string(R"({"Name":"a\nb"})"), std::string("{\"Name\":\"\xff\xfe\"}"),
        R"({"Name":")" + std::string(300, 'a') + "\"}",
        std::string(R"({"Name":"/fine","Config":[1]})").substr(1),
        R"({"Name":"/fine","pad":")" + std::string(2u << 20, 'x') + "\"}", std::string(100'000, '['),
        std::string(R"({"Config":{"Labels":[]},"Name":{"Name":"x"}})")}) {
    EXPECT_EQ(name_in(text), "") << text.substr(0, 60);
  }
  FakeProc node;
  node.write("elsewhere", R"({"Name":"/fine"})");
  std::filesystem::create_directories(std::filesystem::path(file(node)).parent_path());
  ASSERT_EQ(::mkfifo(file(node).c_str(), 0600), 0);
  EXPECT_EQ(below(node, {kId, "docker", "", ""}).name, "") << "a pipe that nobody writes";
  std::filesystem::remove(file(node));
  node.link("var/lib/docker/containers/" + kId + "/config.v2.json", "/dev/zero");
  EXPECT_EQ(below(node, {kId, "docker", "", ""}).name, "");
  std::filesystem::remove(file(node));
  node.link("var/lib/docker/containers/" + kId + "/config.v2.json", node.root() + "/elsewhere");
  EXPECT_EQ(below(node, {kId, "docker", "", ""}).name, "") << "a link to what somebody else wrote";

  FakeProc logs;
  for (const char* name : {"a b_shop_x-", "_shop_x-", "web__x-", "web_shop_x_y-", "web_shop-"})
    logs.write(std::string("var/log/containers/") + name + kId + ".log", "");
  expect_pod(below(logs, {kId, "containerd", kUid, ""}), "", "", "");
}

}  // namespace
}  // namespace looptrace
