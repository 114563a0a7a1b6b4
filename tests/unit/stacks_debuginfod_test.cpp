// SPDX-License-Identifier: Apache-2.0
//
// A stripped program whose debug file is on a server only: Python's file server, with the layout of
// debuginfod.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "stacks/debuginfod.h"
#include "stacks/elf_object.h"
#include "stacks/symbolizer.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

bool run(const std::string& command) { return std::system((command + " 2>/dev/null").c_str()) == 0; }

class FileServer {
 public:
  explicit FileServer(const std::string& directory) {
    const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(socket_fd, reinterpret_cast<sockaddr*>(&address), size) == 0)
      getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &size);
    close(socket_fd);
    port_ = ntohs(address.sin_port);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int null = open((directory + "/log").c_str(), O_RDWR | O_CREAT, 0600);
      for (const int fd : {1, 2}) dup2(null, fd);
      execlp("python3", "python3", "-m", "http.server", std::to_string(port_).c_str(), "--bind", "127.0.0.1",
             "--directory", directory.c_str(), nullptr);
      _exit(127);
    }
    for (int i = 0; i < 100 && !answers(); ++i) usleep(50000);
  }
  ~FileServer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  bool answers() const {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port_));
    const bool done = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(fd);
    return done;
  }
  int port_ = 0;
  pid_t pid_ = -1;
};

class DebuginfodTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("looptrace-debuginfod-" + std::to_string(getpid()));
    fs::create_directories(directory_);
    setenv("DEBUGINFOD_CACHE_PATH", (directory_ / "cache").c_str(), 1);
  }
  void TearDown() override {
    unsetenv("DEBUGINFOD_URLS");
    fs::remove_all(directory_);
  }
  // prog.dbg, and stripped without it.
  bool make_program() {
    const std::string d = directory_;
    std::ofstream(d + "/prog.c")
        << "static __attribute__((noinline)) int only_in_debug_data(int n) {\n  return n * 3;\n}\n"
           "int main(int argc, char **argv) {\n  (void)argv;\n  return only_in_debug_data(argc);\n}\n";
    if (!run("cd " + d +
             " && cc -g -O1 -Wl,--build-id prog.c -o prog && objcopy --only-keep-debug prog prog.dbg && "
             "nm prog > names && strip prog -o stripped"))
      return false;
    std::ifstream names(d + "/names");
    for (std::string line; std::getline(names, line);)
      if (line.ends_with(" only_in_debug_data")) address_ = std::stoull(line, nullptr, 16);
    return address_ != 0;
  }
  std::shared_ptr<ElfObject> open_stripped(std::shared_ptr<Debuginfod> servers) {
    const std::string path = directory_ / "stripped";
    auto object = ElfObject::from_fd(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path, {},
                                     std::move(servers));
    return object ? *object : nullptr;
  }
  fs::path directory_;
  uint64_t address_ = 0;
};

TEST_F(DebuginfodTest, NeedsAServer) {
  unsetenv("DEBUGINFOD_URLS");
  const auto servers = Debuginfod::open();
  ASSERT_FALSE(servers);
  EXPECT_EQ(servers.error().fault, Fault::usage);
}

TEST_F(DebuginfodTest, NamesAndLinesComeFromAServer) {
  const std::string d = directory_;
  if (!make_program()) GTEST_SKIP() << "no C compiler or binutils here";
  const uint64_t address = address_;
  const auto unasked = open_stripped(nullptr);
  EXPECT_FALSE(unasked->find_symbol(address));
  EXPECT_TRUE(unasked->positions(address).empty());
  const std::string id = unasked->build_id();
  ASSERT_FALSE(id.empty());

  const FileServer server(d);
  setenv("DEBUGINFOD_URLS", server.url().c_str(), 1);
  auto servers = Debuginfod::open();
  if (!servers) GTEST_SKIP() << servers.error().message();
  // What the server does not have, and what is not the file that was asked for, is as if there were none.
  EXPECT_FALSE(open_stripped(*servers)->find_symbol(address));
  fs::create_directories(directory_ / "buildid" / id);
  fs::remove_all(directory_ / "cache");  // it remembers what is not there
  fs::copy_file("/proc/self/exe", directory_ / "buildid" / id / "debuginfo");
  EXPECT_FALSE(open_stripped(*servers)->find_symbol(address));
  fs::remove_all(directory_ / "cache");
  fs::copy_file(d + "/prog.dbg", directory_ / "buildid" / id / "debuginfo",
                fs::copy_options::overwrite_existing);

  const auto object = open_stripped(*servers);
  const auto symbol = object->find_symbol(address);
  ASSERT_TRUE(symbol);
  EXPECT_EQ(symbol->name, "only_in_debug_data");
  const auto positions = object->positions(address);
  ASSERT_FALSE(positions.empty());
  EXPECT_TRUE(positions.back().file.ends_with("prog.c")) << positions.back().file;
  EXPECT_GE(positions.back().line, 1);
  EXPECT_LE(positions.back().line, 3);
}

// Whoever wants a file's lines may be about to attach: an answer may take seconds.
TEST_F(DebuginfodTest, OfWhatIsWantedNobodyIsAskedBeforeItIsRead) {
  if (!make_program()) GTEST_SKIP() << "no C compiler or binutils here";
  const FileServer server(directory_);
  setenv("DEBUGINFOD_URLS", server.url().c_str(), 1);
  auto servers = Debuginfod::open();
  if (!servers) GTEST_SKIP() << servers.error().message();
  const auto object = open_stripped(*servers);
  ASSERT_TRUE(object);
  fs::create_directories(directory_ / "buildid" / object->build_id());
  fs::copy_file(directory_ / "prog.dbg", directory_ / "buildid" / object->build_id() / "debuginfo");
  const auto asked = [&] {
    std::ifstream log(directory_ / "log");
    return std::string(std::istreambuf_iterator<char>(log), {}).find("GET /buildid/") != std::string::npos;
  };

  Symbolizer symbolizer({});
  symbolizer.want(object);
  EXPECT_TRUE(symbolizer.has_more_to_read());
  EXPECT_FALSE(asked());
  for (int i = 0; i < 1000 && symbolizer.has_more_to_read(); ++i) symbolizer.read_on();
  EXPECT_FALSE(symbolizer.has_more_to_read());
  EXPECT_TRUE(asked());
  EXPECT_TRUE(object->lines_are_read());
  EXPECT_FALSE(object->positions(address_).empty());
}

}  // namespace
}  // namespace looptrace
