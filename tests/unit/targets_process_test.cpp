// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <thread>

#include "base/files.h"
#include "targets/process.h"
#include "targets_fake_proc.h"

namespace looptrace {
namespace {

TEST(ParseStat, ReadsTheFieldsBehindTheName) {
  const auto stat = parse_stat(
      "4242 (server) S 17 4242 4242 0 -1 4194560 900 0 0 0 10 20 0 0 20 0 3 0 123456 1000 250 "
      "18446744073709551615\n");
  ASSERT_TRUE(stat);
  EXPECT_EQ(stat->comm, "server");
  EXPECT_EQ(stat->state, 'S');
  EXPECT_EQ(stat->parent, 17);
  EXPECT_EQ(stat->threads, 3u);
  EXPECT_EQ(stat->start_ns, 1234560000000ull);
  EXPECT_FALSE(stat->is_kernel_thread());
}

TEST(ParseStat, SurvivesHostileNames) {
  const std::string tail = " R 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 1 1 1\n";
  for (const std::string name :
       {") (", "a) R 9 (b", "x\ny", "", "))))", "((((", " ", "(sd-pam)", ") S 1 2 3", "\xff\xfe)"}) {
    const auto stat = parse_stat("7 (" + name + ")" + tail);
    ASSERT_TRUE(stat) << name;
    EXPECT_EQ(stat->comm, name);
    EXPECT_EQ(stat->state, 'R');
    EXPECT_EQ(stat->parent, 1);
  }
}

TEST(ParseStat, RefusesWhatIsCutOrIsNotAStat) {
  for (const char* text : {"", "7", "7 (", "7 (a", "7 (a)", "7 (a) ", "7 (a) S 1", ")(", "7 )a( S 1 2 3"}) {
    EXPECT_FALSE(parse_stat(text)) << text;
  }
}

TEST(ParseStat, KnowsKernelThreadsAndTheDead) {
  EXPECT_TRUE(
      parse_stat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0 0")->is_kernel_thread());
  EXPECT_TRUE(parse_stat("9 (z) Z 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0 0")->has_ended());
  EXPECT_FALSE(parse_stat("9 (z) Z 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 4 0 1 0 0 0")->has_ended())
      << "only the main thread has ended";
}

TEST(ParseStatus, ReadsIds) {
  const auto status = parse_status(
      "Name:\tx\\nTgid:\t1\nTgid:\t10\nPid:\t11\nUid:\t1000\t0\t0\t0\nNSpid:\t11\t3\t1\nThreads:\t2\n");
  ASSERT_TRUE(status);
  EXPECT_EQ(status->tgid, 10);
  EXPECT_EQ(status->uid, 1000u);
  EXPECT_EQ(status->ns_pids, (std::vector<pid_t>{11, 3, 1}));
  EXPECT_FALSE(parse_status("Name:\tx\n"));
}

TEST(CommandLine, IsWhatAShellWouldTake) {
  const auto render = [](std::string_view text) { return render_command_line(text); };
  EXPECT_EQ(render(std::string_view("python3\0app.py\0--port=80\0", 25)), "python3 app.py --port=80");
  EXPECT_EQ(render(std::string_view("sh\0-c\0echo $HOME; ls\0", 22)), "sh -c 'echo $HOME; ls'");
  EXPECT_EQ(render(std::string_view("a\0it's\0", 7)), "a 'it'\\''s'");
  EXPECT_EQ(render(std::string_view("a\0\0b\0", 5)), "a '' b");
  EXPECT_EQ(render(std::string_view("a\0x\ny\033\0", 7)), "a $'x\\x0ay\\x1b'");
  EXPECT_EQ(render(""), "");
}

TEST(CommandLine, LeavesTitlesAlone) {
  EXPECT_EQ(render_command_line("nginx: worker process"), "nginx: worker process");
  EXPECT_EQ(render_command_line(std::string_view("postgres: writer\0\0\0\0", 20)), "postgres: writer");
}

TEST(CommandLine, IsBoundedAndNotCutInsideACharacter) {
  std::string text = "a";
  text += '\0';
  for (int i = 0; i < 5000; ++i) text += "\xc3\xa9";
  const std::string line = render_command_line(text);
  EXPECT_LE(line.size(), 4096u);
  EXPECT_TRUE(line.ends_with("\xc3\xa9...")) << line.substr(line.size() - 8);
  EXPECT_LE(render_command_line(std::string(1 << 20, 'x')).size(), 4096u);
}

TEST(StartTime, IsRfc3339) {
  EXPECT_EQ(realtime_to_rfc3339(1795424400'123456789ull), "2026-11-23T09:00:00.123456789Z");
  timespec real{}, boot{};
  ::clock_gettime(CLOCK_REALTIME, &real);
  ::clock_gettime(CLOCK_BOOTTIME, &boot);
  constexpr uint64_t kSecond = 1'000'000'000;
  const std::string now = boot_time_to_rfc3339(static_cast<uint64_t>(boot.tv_sec) * kSecond);
  bool is_close = false;  // both were cut to the second
  for (int back = 0; back <= 2; ++back) {
    const uint64_t ns = static_cast<uint64_t>(real.tv_sec - back) * kSecond;
    is_close |= now.substr(0, 19) == realtime_to_rfc3339(ns).substr(0, 19);
  }
  EXPECT_TRUE(is_close) << now;
  EXPECT_EQ(now.size(), 30u);
}

TEST(ReadProcess, ReadsEverything) {
  FakeProc fake;
  fake.add({.pid = 42,
            .comm = "my (srv)",
            .parent = 7,
            .start_ticks = 250,
            .exe = "/opt/srv (deleted)",
            .cmdline = std::string("srv\0-x\0", 7),
            .threads = {{43, "io"}, {44, "w) (\n"}}});
  const auto facts = read_process(fake.procfs(), 42);
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->comm, "my (srv)");
  EXPECT_EQ(facts->parent, 7);
  EXPECT_EQ(facts->uid, 1000u);
  EXPECT_EQ(facts->exe, "/opt/srv");
  EXPECT_TRUE(facts->exe_deleted);
  EXPECT_EQ(facts->command_line, "srv -x");
  EXPECT_EQ(facts->ns_pids, (std::vector<pid_t>{42, 7}));
  EXPECT_EQ(facts->threads.size(), 3u);
  EXPECT_TRUE(is_start(facts->start_ns, 2'500'000'000ull));
  EXPECT_TRUE(is_start(facts->start_ns, 2'509'999'999ull));
  EXPECT_FALSE(is_start(facts->start_ns, 2'510'000'000ull));

  const ProcessInfo info = to_process_info(*facts);
  EXPECT_EQ(info.pid, 42u);
  EXPECT_EQ(info.cgroup, "/system.slice/server.service");
  EXPECT_EQ(info.executable, "/opt/srv");
}

TEST(ReadProcess, VanishedProcessesAreDataNotErrors) {
  FakeProc fake;
  EXPECT_FALSE(read_process(fake.procfs(), 42));
  fake.add({.pid = 42, .state = 'Z'});
  EXPECT_FALSE(read_process(fake.procfs(), 42));
  fake.add({.pid = 43, .threads = {{44, "t"}}});
  std::filesystem::remove_all(fake.root() + "/43/task");
  EXPECT_FALSE(read_process(fake.procfs(), 43)) << "went away between two reads";
  EXPECT_TRUE(read_process(fake.procfs(), 43, kPartExe));
  EXPECT_FALSE(read_thread_comm(fake.procfs(), 99));
  EXPECT_FALSE(process_of_thread(fake.procfs(), 99));
}

TEST(ReadProcess, KernelThreadsHaveNoExe) {
  FakeProc fake;
  fake.add({.pid = 2, .comm = "kworker/0:1-events", .flags = 0x00200000, .exe = ""});
  const auto facts = read_process(fake.procfs(), 2);
  ASSERT_TRUE(facts);
  EXPECT_TRUE(facts->is_kernel_thread);
  EXPECT_EQ(facts->exe, "");
}

TEST(ReadProcess, AgreesWithTheKernelAboutThisProcess) {
  std::atomic<pid_t> tid = 0;
  std::atomic<bool> stop = false;
  std::thread thread([&] {
    ::prctl(PR_SET_NAME, "odd ) (\nname");
    tid = ::gettid();
    while (!stop) ::usleep(1000);
  });
  while (!tid) ::usleep(1000);
  const ProcFs procfs;
  const auto facts = read_process(procfs, ::getpid());
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->parent, ::getppid());
  EXPECT_EQ(facts->uid, ::getuid());
  EXPECT_EQ(facts->ns_pids.back(), ::getpid());
  EXPECT_EQ(facts->exe, read_link("/proc/self/exe").value());
  ASSERT_EQ(facts->threads.size(), 2u);
  EXPECT_EQ(facts->threads[1].comm, "odd ) (\nname");
  EXPECT_EQ(read_thread_comm(procfs, tid), "odd ) (\nname");
  EXPECT_EQ(process_of_thread(procfs, tid), ::getpid());
  EXPECT_FALSE(read_process(procfs, tid, kPartStatus)) << "a thread is no process";
  stop = true;
  thread.join();
}

TEST(ReadProcess, SeesAChildGo) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(read_process(ProcFs(), child)) << "a zombie has ended";
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(read_process(ProcFs(), child));
}

}  // namespace
}  // namespace looptrace
