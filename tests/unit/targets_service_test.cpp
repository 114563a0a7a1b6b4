// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "targets/service.h"

namespace looptrace {
namespace {

ProcessInfo process(const std::string& comm, const std::string& cgroup = "/", const std::string& exe = "") {
  ProcessInfo p;
  p.comm = comm;
  p.cgroup = cgroup;
  p.executable = exe;
  return p;
}

TEST(Service, WithoutRules) {
  EXPECT_EQ(service_without_rule(process("nginx", "/system.slice/nginx.service"), {}), "nginx");
  EXPECT_EQ(service_without_rule(process("node", "/system.slice/app@blue.service"), {}), "app");
  EXPECT_EQ(service_without_rule(process("vim", "/user.slice/user-0.slice/session-3.scope"), {}), "vim");
  EXPECT_EQ(service_without_rule(process("vim", "/user.slice/user-0.slice/user@0.service/app.slice"), {}),
            "vim");
  EXPECT_EQ(
      service_without_rule(process("node", "/kubepods/x"), {"id", "shop", "web-5d9c7b6f4-x2x7k", "app"}),
      "web");
  EXPECT_EQ(service_without_rule(process("node", "/system.slice/docker.service/x"), {"id", "", "", ""}),
            "node");
}

TEST(Service, TheWorkloadOfAPod) {
  EXPECT_EQ(workload_of_pod("web-5d9c7b6f4-x2x7k"), "web");
  EXPECT_EQ(workload_of_pod("my-web-app-5d9c7b6f4-x2x7k"), "my-web-app");
  EXPECT_EQ(workload_of_pod("fluent-bit-x2x7k"), "fluent-bit");
  EXPECT_EQ(workload_of_pod("postgres-0"), "postgres");
  EXPECT_EQ(workload_of_pod("postgres-12"), "postgres");
  EXPECT_EQ(workload_of_pod("kube-proxy"), "kube-proxy") << "a word is no suffix";
  EXPECT_EQ(workload_of_pod("etcd"), "etcd");
  EXPECT_EQ(workload_of_pod("web-event"), "web-event") << "five letters, with vowels";
  EXPECT_EQ(workload_of_pod("-x2x7k"), "-x2x7k");
}

TEST(Service, TheFirstRuleThatHolds) {
  std::vector<ServiceRule> rules;
  for (const char* text : {"checkout exe=/srv/shop/* namespace=shop", "node comm=node", "rest  comm=*"})
    rules.push_back(*parse_service_rule(text));
  ContainerInfo pod{"id", "shop", "web-1", "app"};
  EXPECT_EQ(service_by_rule(rules, process("node", "/", "/srv/shop/bin/node"), pod), "checkout");
  EXPECT_EQ(service_by_rule(rules, process("node", "/", "/srv/shop/bin/node"), {}), "node")
      << "all must hold";
  EXPECT_EQ(service_by_rule(rules, process("ruby"), {}), "rest");
  EXPECT_EQ(service_by_rule({}, process("ruby"), {}), "");
}

TEST(Service, WrongRules) {
  for (const char* text :
       {"", "checkout", "comm=node", "checkout comm", "checkout comm=", "checkout color=red"}) {
    const auto rule = parse_service_rule(text);
    ASSERT_FALSE(rule) << text;
    EXPECT_EQ(rule.error().fault, Fault::usage);
  }
}

}  // namespace
}  // namespace looptrace
