// SPDX-License-Identifier: Apache-2.0
// `looptrace agent` whose records nobody reads, whose memory is capped, whose records must not name anyone.
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <numeric>

#include "agent_parts.h"

namespace looptrace::test {
namespace {

/// How often the kernel has run the BPF programs of a process; it counts while bpf_stats_enabled is 1.
uint64_t bpf_runs(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid);
  DIR* dir = opendir((proc + "/fdinfo").c_str());
  uint64_t runs = 0;
  while (const dirent* entry = dir ? readdir(dir) : nullptr) {
    std::ifstream info(proc + "/fdinfo/" + entry->d_name);
    for (std::string line; std::getline(info, line);) {
      if (line.starts_with("run_cnt:")) runs += std::stoull(line.substr(8));
    }
  }
  if (dir) closedir(dir);
  return runs;
}

/// kernel.bpf_stats_enabled while it lives.
class BpfStats {
 public:
  BpfStats() {
    std::ifstream(kPath) >> before_;
    std::ofstream(kPath) << "1";
  }
  ~BpfStats() { std::ofstream(kPath) << before_; }

 private:
  static constexpr const char* kPath = "/proc/sys/kernel/bpf_stats_enabled";
  std::string before_;
};

uint64_t sum_of(const std::vector<json>& windows, const std::string& reason) {
  return std::accumulate(windows.begin(), windows.end(), uint64_t{0}, [&](uint64_t sum, const json& w) {
    return sum + w.value("dropped", json::object()).value(reason, uint64_t{0});
  });
}

bool warned(Trace& agent, const std::string& code) {
  const auto warnings = agent.records("looptrace.warning/1");
  return std::any_of(warnings.begin(), warnings.end(), [&](const json& w) { return w["code"] == code; });
}

/// The records of a file, but for a line that was torn where its disk was full.
std::vector<json> records_in(const std::string& path, const std::string& schema) {
  std::vector<json> records;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const json record = json::parse(line, nullptr, false);
    if (record.is_object() && record["schema"] == schema) records.push_back(record);
  }
  return records;
}

std::vector<json> stalls_in(const std::string& path, pid_t pid) {
  return of_pid(records_in(path, "looptrace.stall/1"), pid);
}

// Nobody reads, so nothing is worth tracing: what does not fit is dropped and counted, the hooks go, and they
// come back with the reader.
TEST(AgentOutput, AReaderThatHangsCostsNothing) {
  LOOPTRACE_NEEDS_ROOT();
  const BpfStats stats;
  const uint16_t port = free_port();
  const Config config(for_victim(
      "[trace]\nthreshold = 10ms\n[sampling]\nwindow = 1s\nrecords = 2000\nper_fingerprint = 2000\n"
      "[budget]\ncpu = 100%\n",
      "127.0.0.1:" + std::to_string(port)));
  Victim load("epoll_sleep", {"--threads", "12", "--count", "1500", "--stall-ms", "12", "--gap-ms", "8"});
  ASSERT_TRUE(load.ready());
  Trace agent({"agent", "--config", config.path()}, ProcessOptions{false, 0, ""});
  const pid_t pid = agent.process().pid();
  // Told by another way. That there are no links is not enough: one that comes late by a window, beside
  // others, lets go of them for some 20 ms and goes on.
  const auto is_told = [&] {
    const std::string page = http_get(port, "/metrics");
    return page.find("looptrace_agent_budget_info{level=\"hooks_off\",reason=\"output\"}") != page.npos;
  };
  ASSERT_TRUE(wait_until([&] { return is_told() && links_of(pid) == 0; }, 25))
      << "the hooks are still there; " << agent.process().errors() << http_get(port, "/metrics");

  const uint64_t runs = bpf_runs(pid);
  EXPECT_GT(runs, 0u);
  usleep(2'000'000);
  EXPECT_EQ(bpf_runs(pid), runs) << "no program of it runs";
  EXPECT_EQ(links_of(pid), 0u);
  EXPECT_FALSE(load.process().ended()) << "there was something to trace all the time";
  EXPECT_LT(status_number(pid, "VmRSS"), 128u << 10);
  EXPECT_TRUE(is_told());
  EXPECT_TRUE(http_get(port, "/healthz").starts_with("HTTP/1.1 200"));
  load.process().signal(SIGKILL);

  agent.process().read_output();
  EXPECT_TRUE(wait_until([&] { return warned(agent, "output_back"); }, 15));
  EXPECT_TRUE(warned(agent, "output_stuck"));
  ASSERT_TRUE(wait_until([&] { return links_of(pid) > 0; }, 5)) << "it traces again";
  Victim later("epoll_sleep", {"--count", "5", "--stall-ms", "60", "--gap-ms", "40", "--delay-ms", "1500"});
  const auto truth = later.truth();
  EXPECT_EQ(truth.size(), 5u);
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
  expect_exactly(of_pid(agent.stalls(), later.pid()), truth, 3 * kMs);

  const auto windows = agent.records("looptrace.window/1");
  const uint64_t dropped = sum_of(windows, "output_full");
  uint64_t kept = 0;
  for (const json& w : windows) kept += w["kept"].get<uint64_t>();
  const uint64_t written = agent.stalls().size();
  std::printf("%llu stalls kept, %llu written, %llu lines dropped\n", static_cast<unsigned long long>(kept),
              static_cast<unsigned long long>(written), static_cast<unsigned long long>(dropped));
  EXPECT_LT(written, kept) << "nothing was dropped: nothing was shown";
  EXPECT_GE(dropped, kept - written) << "every record that is missing is counted";
  EXPECT_EQ(agent.summary()->at("dropped").at("output_full"), dropped);
  // Not the first of them: that one may have been over when the reader was found to hang.
  EXPECT_TRUE(std::any_of(windows.begin(), windows.end(), [](const json& w) {
    return w["budget"].value("reason", "") == "output" && w["budget"]["level"] == "hooks_off" &&
           w["attached_ns"].get<uint64_t>() < 1000 * kMs;
  }));
}

TEST(AgentOutput, EndsThoughNobodyReads) {
  LOOPTRACE_NEEDS_ROOT();
  const Config config(
      for_victim("[trace]\nthreshold = 10ms\n[sampling]\nwindow = 1s\nrecords = "
                 "500\nper_fingerprint = 500\n[budget]\ncpu = 100%\n"));
  Victim load("epoll_sleep", {"--threads", "8", "--count", "600", "--stall-ms", "12", "--gap-ms", "8"});
  ASSERT_TRUE(load.ready());
  Trace agent({"agent", "--config", config.path()}, ProcessOptions{false, 0, ""});
  usleep(5'000'000);
  agent.process().signal(SIGTERM);
  EXPECT_EQ(agent.process().wait(10), 0) << agent.process().errors();
  for (const char* part : {"standard output", "the last records are lost", " lines were not written"})
    EXPECT_NE(agent.process().errors().find(part), std::string::npos)
        << "what was lost at the end is told: " << agent.process().errors();
}

/// A file system of its own that is soon full.
class SmallDisk {
 public:
  SmallDisk() : mounted_(mount("none", path().c_str(), "tmpfs", 0, "size=128k") == 0) {}
  ~SmallDisk() {
    if (mounted_) umount2(path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  const std::string& path() const { return directory_.path(); }
  void fill() const {
    const int fd = open(filling().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const std::string page(4096, '.');
    while (write(fd, page.data(), page.size()) > 0) {
    }
    EXPECT_EQ(errno, ENOSPC);
    close(fd);
  }
  void free() const { unlink(filling().c_str()); }

 private:
  std::string filling() const { return path() + "/filling"; }
  Directory directory_;
  bool mounted_;
};

// A disk that is full now may have room later.
TEST(AgentOutput, AFullDiskIsWaitedFor) {
  LOOPTRACE_NEEDS_ROOT();
  const SmallDisk disk;
  ASSERT_TRUE(disk.mounted());
  const std::string file = disk.path() + "/records";
  const Config config(
      for_victim("[sampling]\nwindow = 1s\n[output]\nfile = " + file + "\n[budget]\ncpu = 100%\n"));
  const auto stall = [] {
    return Victim("epoll_sleep",
                  {"--count", "3", "--stall-ms", "60", "--gap-ms", "40", "--delay-ms", "1500"});
  };
  Trace agent({"agent", "--config", config.path()});
  const pid_t pid = agent.process().pid();
  Victim before = stall();
  ASSERT_TRUE(wait_until([&] { return links_of(pid) > 0; }, 15)) << agent.process().errors();
  const auto truth = before.truth();
  ASSERT_TRUE(wait_until([&] { return stalls_in(file, before.pid()).size() == 3; }, 5));

  disk.fill();
  ASSERT_TRUE(wait_until([&] { return links_of(pid) == 0; }, 10)) << "it traces for nobody";
  usleep(2'000'000);
  EXPECT_FALSE(agent.process().ended()) << agent.process().errors();
  EXPECT_EQ(links_of(pid), 0u);

  disk.free();
  ASSERT_TRUE(wait_until([&] { return links_of(pid) > 0; }, 10)) << "there is room again";
  Victim after = stall();
  EXPECT_EQ(after.truth().size(), 3u);
  agent.process().signal(SIGTERM);
  EXPECT_EQ(agent.process().wait(), 0) << agent.process().errors();
  EXPECT_EQ(agent.process().errors().find("are lost"), std::string::npos) << agent.process().errors();
  EXPECT_EQ(stalls_in(file, before.pid()).size(), truth.size());
  EXPECT_EQ(stalls_in(file, after.pid()).size(), 3u);
  const std::vector<json> summaries = records_in(file, "looptrace.summary/1");
  ASSERT_FALSE(summaries.empty());
  EXPECT_GE(summaries.back()["dropped"].value("output_failed", 0u), 1u);
}

// Kubernetes asks /healthz, and ends who does not answer: also in windows without hooks.
TEST(AgentOutput, IsHealthyInWindowsThatAreNotTraced) {
  LOOPTRACE_NEEDS_ROOT();
  const uint16_t port = free_port();
  const Config config(for_victim("[trace]\ninterval = 1s\n[sampling]\nwindow = 60s\nprobability = 0.000001\n",
                                 "127.0.0.1:" + std::to_string(port)));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  usleep(9'500'000);  // three intervals and five seconds
  EXPECT_EQ(links_of(agent.process().pid()), 0u);
  const std::string health = http_get(port, "/healthz");
  EXPECT_TRUE(health.starts_with("HTTP/1.1 200")) << health;
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
  EXPECT_GE(agent.records("looptrace.summary/1").size(), 6u);
}

// With targets of its own: what else this host runs does not matter.
TEST(AgentOutput, KeepsItsMemoryUnderTheCap) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "1000", "--stall-ms", "60", "--gap-ms", "140"});
  ASSERT_TRUE(victim.ready());
  const auto run_with = [&](const std::string& cap, double seconds, std::string* page) {
    const uint16_t port = free_port();
    const Config config(
        for_victim("[trace]\ninterval = 1s\n[sampling]\nwindow = 1s\n[budget]\ncpu = 100%\nmemory = " + cap +
                       "\nrecovery = 60s\n",
                   "127.0.0.1:" + std::to_string(port)));
    Trace agent({"agent", "--config", config.path()});
    EXPECT_TRUE(agent.started());
    usleep(static_cast<useconds_t>(seconds * 1e6));
    *page = http_get(port, "/metrics");
    EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
    return agent.records("looptrace.window/1");
  };
  std::string page;
  const auto free = run_with("0", 4, &page);
  ASSERT_FALSE(free.empty());
  const json uncapped = free.back();
  EXPECT_FALSE(uncapped["budget"].contains("memory_limit_bytes"));
  EXPECT_EQ(uncapped["budget"]["level"], "full");
  EXPECT_GT(uncapped["attached_ns"], 0);
  EXPECT_NE(page.find("looptrace_agent_resident_bytes"), std::string::npos);
  const uint64_t resident = uncapped["resident_bytes"];

  // More than it needs: that costs nothing.
  const uint64_t ample = (resident >> 20) * 4;
  const auto kept = run_with(std::to_string(ample) + "M", 4, &page);
  ASSERT_FALSE(kept.empty());
  EXPECT_EQ(kept.back()["budget"]["memory_limit_bytes"], ample << 20);
  EXPECT_EQ(kept.back()["budget"]["level"], "full");
  EXPECT_EQ(page.find("reason=\"memory\"} 1"), std::string::npos) << page;

  // One that it cannot keep: nothing is traced.
  ASSERT_GT(resident, 8u << 20);
  const auto none = run_with("8M", 9, &page);
  ASSERT_FALSE(none.empty());
  EXPECT_EQ(none.back()["budget"]["memory_limit_bytes"], 8u << 20);
  EXPECT_EQ(none.back()["budget"]["level"], "hooks_off");
  EXPECT_EQ(none.back()["budget"]["reason"], "memory");
  EXPECT_EQ(none.back()["attached_ns"], 0);
  EXPECT_NE(page.find("reason=\"memory\"} 1"), std::string::npos) << page;
}

/// A shared object whose unwind table has this many functions with padding between them: 16 bytes of rows
/// each.
std::string large_object(uint32_t functions) {
  std::string file(0x200, '\0');
  const auto put = [&](auto value) { file.append(reinterpret_cast<const char*>(&value), sizeof value); };
  const uint64_t eh_frame = file.size();
  // A CIE: "zR", pc-relative pointers of four bytes; the CFA is rsp + 8, the return address below it.
  const unsigned char cie[] = {20, 0,    0,  0, 0,    0,    0, 0, 1,    'z', 'R', 0,
                               1,  0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1,   0,   0};
  file.append(reinterpret_cast<const char*>(cie), sizeof cie);
  for (uint32_t i = 0; i < functions; ++i) {
    put(uint32_t{16});
    put(static_cast<uint32_t>(file.size() - eh_frame));
    put(static_cast<uint32_t>(0x4000'0000 + i * 64 - file.size()));
    put(uint32_t{32});
    put(uint32_t{0});
  }
  const uint64_t names = file.size();
  const std::string_view section_names("\0.eh_frame\0.shstrtab\0", 21);
  file += section_names;
  file.resize((file.size() + 7) / 8 * 8);

  Elf64_Ehdr head{};
  std::memcpy(head.e_ident, ELFMAG, SELFMAG);
  head.e_ident[EI_CLASS] = ELFCLASS64;
  head.e_ident[EI_DATA] = ELFDATA2LSB;
  head.e_ident[EI_VERSION] = EV_CURRENT;
  head.e_type = ET_DYN;
  head.e_machine = EM_X86_64;
  head.e_version = EV_CURRENT;
  head.e_phoff = sizeof head;
  head.e_shoff = file.size();
  head.e_ehsize = sizeof head;
  head.e_phentsize = sizeof(Elf64_Phdr);
  head.e_phnum = 1;
  head.e_shentsize = sizeof(Elf64_Shdr);
  head.e_shnum = 3;
  head.e_shstrndx = 2;
  const Elf64_Phdr load{PT_LOAD, PF_R | PF_X, 0, 0, 0, file.size(), file.size(), 4096};
  put(Elf64_Shdr{});
  put(Elf64_Shdr{1, SHT_PROGBITS, SHF_ALLOC, eh_frame, eh_frame, names - eh_frame, 0, 0, 8, 0});
  put(Elf64_Shdr{11, SHT_STRTAB, 0, 0, names, section_names.size(), 0, 0, 1, 0});
  std::memcpy(file.data(), &head, sizeof head);
  std::memcpy(file.data() + sizeof head, &load, sizeof load);
  return file;
}

// The unwind tables of a program with many large libraries: as much of them is left out as does not fit.
TEST(AgentOutput, ManyLargeModulesDoNotBreakTheCap) {
  LOOPTRACE_NEEDS_ROOT();
  const Directory files;
  std::string object = large_object(200'000);
  for (int i = 0; i < 16; ++i) {
    object += ' ';  // none of them is another's copy
    std::ofstream(files.path() + "/lib" + std::to_string(i) + ".so") << object;
  }
  Victim victim("many_modules",
                {"--dir", files.path(), "--count", "1000", "--stall-ms", "60", "--gap-ms", "140"});
  ASSERT_TRUE(victim.ready());
  const auto run_with = [&](const std::string& cap, uint64_t* peak) {
    const Config config(
        "[targets]\nexe = \"" + victim_path("many_modules") +
        "\"\n[sampling]\nwindow = 1s\n[metrics]\nlisten = \"\"\n[budget]\ncpu = 100%\nmemory = " + cap +
        "\n");
    Trace agent({"agent", "--config", config.path()});
    *peak = 0;
    EXPECT_TRUE(wait_until(
        [&] {
          *peak = std::max(*peak, status_number(agent.process().pid(), "VmRSS") << 10);
          return agent.stalls().size() > 2 && agent.records("looptrace.window/1").size() > 2;
        },
        20));
    EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
    EXPECT_FALSE(agent.stalls().empty()) << "it traces all the same";
    const auto warnings = agent.records("looptrace.warning/1");
    const bool left_out = std::any_of(warnings.begin(), warnings.end(), [](const json& w) {
      return w["code"] == "unwind_table" &&
             w["message"].get<std::string>().find("no room") != std::string::npos;
    });
    EXPECT_EQ(left_out, cap != "0");
    uint64_t most = 0;
    for (const json& w : agent.records("looptrace.window/1"))
      most = std::max(most, w["resident_bytes"].get<uint64_t>());
    return most;
  };
  uint64_t peak_free = 0, peak = 0;
  const uint64_t free = run_with("0", &peak_free);
  const uint64_t cap = 48u << 20, most = run_with("48M", &peak);
  std::printf("uncapped %llu MB, %llu resident at most; capped %llu MB, %llu resident at most\n",
              static_cast<unsigned long long>(free >> 20), static_cast<unsigned long long>(peak_free >> 20),
              static_cast<unsigned long long>(most >> 20), static_cast<unsigned long long>(peak >> 20));
  EXPECT_GT(free, cap + (cap >> 1)) << "nothing was offered that breaks it";
  EXPECT_LE(most, cap);
  EXPECT_LE(peak, cap) << "not even for a moment";
}

/// A file of the kubelet's on this host, removed with the directories that had to be made for it.
class LogLink {
 public:
  explicit LogLink(const std::string& name) : path_("/var/log/containers/" + name) {
    made_ = mkdir("/var/log/containers", 0755) == 0;
    EXPECT_EQ(symlink("/var/log/pods/none", path_.c_str()), 0);
  }
  ~LogLink() {
    unlink(path_.c_str());
    if (made_) rmdir("/var/log/containers");
  }

 private:
  std::string path_;
  bool made_;
};

TEST(AgentOutput, NamesNobodyWhereIdsAreHashed) {
  LOOPTRACE_NEEDS_ROOT();
  const auto mounts = cgroup_hierarchies();
  if (mounts.empty()) GTEST_SKIP() << "no cgroup hierarchy is mounted";
  const std::string id = "5f3a9c" + std::string(58, 'd');
  const std::string uid = "0f5c1d2e-1111-2222-3333-4444" + std::to_string(10'000'000 + getpid());
  ASSERT_EQ(uid.size(), 36u);
  Cgroup container(mounts.back(), "/kubepods/burstable/pod" + uid + "/" + id);
  const LogLink link("frontend-5d9c7b6f4-x2x7k_shopspace_appbox-" + id + ".log");
  const uint16_t port = free_port();
  std::string page;
  const auto run_with = [&](const std::string& privacy) {
    const Config config(
        for_victim("[sampling]\nwindow = 1s\nhost = clearhost.example\n[budget]\ncpu = 100%\n" + privacy,
                   "127.0.0.1:" + std::to_string(port)));
    Victim victim("epoll_sleep",
                  {"--count", "4", "--stall-ms", "60", "--gap-ms", "40", "--delay-ms", "2000"});
    EXPECT_TRUE(container.join(victim.pid()));
    Trace agent({"agent", "--config", config.path()});
    EXPECT_TRUE(agent.started());
    EXPECT_EQ(victim.truth().size(), 4u);
    usleep(1'200'000);
    page = http_get(port, "/metrics");
    EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
    EXPECT_EQ(agent.stalls().size(), 4u);
    std::string all;
    for (const std::string& line : agent.process().lines()) all += line + "\n";
    const auto stalls = agent.stalls();
    return std::pair(all, stalls.empty() ? json() : stalls[0]);
  };
  const std::vector<std::string> names = {"clearhost", "frontend", "shopspace", "appbox", "5f3a9c"};
  const auto [clear, named] = run_with("");
  for (const std::string& name : names)
    EXPECT_NE(clear.find(name), std::string::npos) << name << " is not there to be hidden";
  EXPECT_EQ(named["service"]["name"], "frontend");
  EXPECT_NE(page.find("service=\"frontend\""), std::string::npos);

  const auto hash = [](const std::string& key) {
    return "[privacy]\nhash_host = true\nhash_ids = true\nhash_key = " + key + "\n";
  };
  const auto [hidden, first] = run_with(hash("0123456789abcdef"));
  for (const std::string& name : names) {
    EXPECT_EQ(hidden.find(name), std::string::npos) << name;
    EXPECT_EQ(page.find(name), std::string::npos) << name << " in the metrics";
  }
  EXPECT_EQ(hidden.find(uid), std::string::npos);
  const auto again = run_with(hash("0123456789abcdef")).second;
  const auto other = run_with(hash("another-key-of-16")).second;
  for (const char* pointer : {"/host/name", "/host/id", "/container/id", "/k8s/pod", "/k8s/namespace",
                              "/k8s/container", "/process/cgroup", "/service/name"}) {
    const json::json_pointer at(pointer);
    ASSERT_TRUE(named.contains(at) && first.contains(at)) << pointer;
    EXPECT_EQ(first[at].get<std::string>().size(), 16u) << pointer;
    EXPECT_EQ(first[at], again[at]) << pointer << " is recognised";
    EXPECT_NE(first[at], other[at]) << pointer << " depends on the key";
  }
}

}  // namespace
}  // namespace looptrace::test
