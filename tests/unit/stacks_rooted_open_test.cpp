// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "stacks/rooted_open.h"

namespace looptrace {
namespace {

namespace fs = std::filesystem;

/// A root with a file outside of it.
class RootedOpen : public ::testing::Test {
 protected:
  RootedOpen() {
    char name[] = "/tmp/looptrace-rooted-XXXXXX";
    outer_ = ::mkdtemp(name);
    root_ = outer_ / "root";
    write(outer_ / "secret", "secret");
    write(root_ / "usr/lib/libx.so.1", "library");
  }
  ~RootedOpen() override { fs::remove_all(outer_); }

  static void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  void link(const std::string& name, const std::string& target) const {
    fs::create_directories((root_ / name).parent_path());
    fs::create_symlink(target, root_ / name);
  }
  /// What is read there; "-" and errno in error_ if nothing is opened.
  std::string read(const std::string& path, bool follow_last = true) {
    const UniqueFd fd = open_in_root(root_.string(), path, follow_last);
    error_ = fd ? 0 : errno;
    char text[64];
    const ssize_t n = fd ? ::read(fd.get(), text, sizeof text) : -1;
    return n < 0 ? "-" : std::string(text, static_cast<size_t>(n));
  }

  fs::path outer_, root_;
  int error_ = 0;
};

TEST_F(RootedOpen, FindsFilesBelowTheRoot) {
  EXPECT_EQ(read("/usr/lib/libx.so.1"), "library");
  EXPECT_EQ(read("usr//lib/./libx.so.1"), "library");
  EXPECT_EQ(read("/usr/lib/../lib/libx.so.1"), "library");
  EXPECT_EQ(read("/usr/lib/other"), "-");
  EXPECT_EQ(error_, ENOENT);
  EXPECT_EQ(read("/usr/lib/libx.so.1/more"), "-");
  EXPECT_EQ(error_, ENOTDIR);
}

TEST_F(RootedOpen, LinksAreResolvedInsideTheRoot) {
  link("lib", "usr/lib");
  link("lib64", "/usr/lib");
  link("usr/lib/libx.so", "libx.so.1");
  link("etc/alternatives/libx", "../../lib64/libx.so");
  link("opt/x", "/etc/alternatives/libx");
  for (const char* path : {"/lib/libx.so.1", "/lib64/libx.so", "/usr/lib/libx.so", "/opt/x"})
    EXPECT_EQ(read(path), "library") << path;
  // The same link leads to the host's file if it is not.
  link("outside", (outer_ / "secret").string());
  EXPECT_EQ(read("/outside"), "-");
}

TEST_F(RootedOpen, NothingLeadsOutOfTheRoot) {
  link("up", "../secret");
  link("usr/up", "../../../../../secret");
  link("usr/top", "../../..");
  for (const char* path :
       {"/../secret", "../../secret", "/usr/../../secret", "/up", "/usr/up", "/usr/top/secret"})
    EXPECT_EQ(read(path), "-") << path;
  EXPECT_EQ(read("/usr/top/usr/lib/libx.so.1"), "library") << "the root is its own parent";
  // A link of /proc that is no text: what it says is looked for in the root, not followed.
  const std::string descriptor =
      "/proc/self/fd/" + std::to_string(::open((outer_ / "secret").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(open_in_root("", descriptor + "/..").get() >= 0);
  link("descriptor", descriptor);
  EXPECT_EQ(read("/descriptor"), "-");
}

TEST_F(RootedOpen, LoopsOfLinksEnd) {
  link("a", "b");
  link("b", "/a");
  EXPECT_EQ(read("/a"), "-");
  EXPECT_EQ(error_, ELOOP);
}

TEST_F(RootedOpen, ALinkAtTheEndCanBeRefused) {
  link("lib", "usr/lib");
  link("x", "lib/libx.so.1");
  EXPECT_EQ(read("/x", true), "library");
  EXPECT_EQ(read("/x", false), "-");
  EXPECT_EQ(error_, ELOOP);
  EXPECT_EQ(read("/lib/libx.so.1", false), "library") << "only at the end";
}

TEST_F(RootedOpen, OpensOnlyRegularFiles) {
  ASSERT_EQ(::mkfifo((root_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(read("/fifo"), "-");
  EXPECT_EQ(read("/usr"), "-");
  EXPECT_EQ(read(""), "-");
  EXPECT_FALSE(open_in_root("", "/dev/null").get() >= 0);
  EXPECT_FALSE(open_in_root("/nonexistent", "/usr").get() >= 0);
}

}  // namespace
}  // namespace looptrace
