// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>

#include "base/fd.h"
#include "base/files.h"
#include "sinks/queued_lines.h"

namespace looptrace {
namespace {

using Millis = std::chrono::milliseconds;
using Drops = std::map<std::string, uint64_t>;

constexpr QueuedLines::Limits kSmall{10'000, 4'000, Millis(20), Millis(60), Millis(200)};
const std::string kLine(1000, 'x');

/// A pipe that is full: whoever writes to it waits.
class FullPipe {
 public:
  FullPipe() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    out_ = UniqueFd(ends[0]);
    in_ = UniqueFd(ends[1]);
    const int size = ::fcntl(in_.get(), F_GETPIPE_SZ);
    filled_ = static_cast<size_t>(size);
    EXPECT_EQ(::write(in_.get(), std::string(filled_, '.').data(), filled_), size);
  }
  LineWriter writer() const { return LineWriter::borrow(in_.get(), "the pipe"); }
  void leave() { out_.reset(); }
  /// So many bytes of what was written behind the filling.
  std::string read(size_t bytes) {
    std::string text;
    while (text.size() < filled_ + bytes) {
      char chunk[4096];
      const ssize_t n = ::read(out_.get(), chunk, std::min(sizeof chunk, filled_ + bytes - text.size()));
      if (n <= 0) break;
      text.append(chunk, static_cast<size_t>(n));
    }
    return text.substr(std::min(filled_, text.size()));
  }

 private:
  UniqueFd out_, in_;
  size_t filled_;
};

bool wait_for(const std::function<bool()>& holds) {
  for (int i = 0; i < 500 && !holds(); ++i) ::usleep(10'000);
  return holds();
}

double seconds_of(const std::function<void()>& act) {
  const auto from = std::chrono::steady_clock::now();
  act();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

TEST(QueuedLines, WritesAllInOrderBeforeItEnds) {
  const std::string path = testing::TempDir() + "/queued." + std::to_string(::getpid());
  ::unlink(path.c_str());
  std::string expected;
  {
    auto file = LineWriter::append_to(path);
    ASSERT_TRUE(file);
    QueuedLines lines(std::move(*file));
    for (int i = 0; i < 2000; ++i) {
      const std::string line = std::to_string(i) + "\n";
      expected += line;
      EXPECT_TRUE(lines.write(line));
    }
    EXPECT_EQ(lines.dropped(), Drops());
  }
  EXPECT_EQ(*read_file(path, 1u << 20), expected);
  ::unlink(path.c_str());
}

TEST(QueuedLines, AReaderThatHangsCostsDropsThatAreCountedAndNoTime) {
  FullPipe pipe;
  QueuedLines lines(pipe.writer(), kSmall);
  const double took = seconds_of([&] {
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(lines.write(kLine));
  });
  EXPECT_LT(took, 1) << "one wait, not one a line";
  // Six of a thousand bytes fit before what is reserved.
  EXPECT_EQ(lines.dropped(), (Drops{{"output_full", 94}}));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(lines.write_first("first" + std::to_string(i) + kLine));
  EXPECT_EQ(lines.dropped(), (Drops{{"output_full", 101}})) << "three more went into the reserve";
  ASSERT_TRUE(wait_for([&] { return !lines.trouble().empty(); }));
  EXPECT_EQ(lines.trouble(), "nobody reads the pipe");

  const std::string got = pipe.read(6 * 1000 + 3 * 1006);
  EXPECT_EQ(got.substr(0, 6000), std::string(6000, 'x'));
  EXPECT_EQ(got.substr(6000, 6), "first0");
  EXPECT_TRUE(wait_for([&] { return lines.trouble().empty(); })) << "all was read";
  EXPECT_TRUE(lines.write("again\n"));
  EXPECT_EQ(lines.dropped(), (Drops{{"output_full", 101}}));
}

TEST(QueuedLines, ASlowReaderIsWaitedFor) {
  FullPipe pipe;
  QueuedLines lines(pipe.writer(), {3'000, 0, Millis(2000), Millis(5000), Millis(5000)});
  std::thread reader([&] {
    ::usleep(100'000);
    EXPECT_EQ(pipe.read(20 * kLine.size()).size(), 20 * kLine.size());
  });
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(lines.write(kLine));
  reader.join();
  EXPECT_EQ(lines.dropped(), Drops());
}

TEST(QueuedLines, ALineLargerThanTheQueueGoesThroughAlone) {
  FullPipe pipe;
  QueuedLines lines(pipe.writer(), kSmall);
  EXPECT_TRUE(lines.write(std::string(50'000, 'y')));
  EXPECT_EQ(lines.dropped(), Drops());
  EXPECT_EQ(pipe.read(50'000), std::string(50'000, 'y'));
}

TEST(QueuedLines, TellsOfAReaderThatLeft) {
  std::signal(SIGPIPE, SIG_IGN);
  FullPipe pipe;
  QueuedLines lines(pipe.writer(), kSmall);
  EXPECT_TRUE(lines.write(kLine));
  EXPECT_TRUE(lines.state());
  pipe.leave();
  ASSERT_TRUE(wait_for([&] { return !lines.state(); }));
  EXPECT_TRUE(is_reader_gone(lines.state().error()));
  const auto after = lines.write(kLine);
  ASSERT_FALSE(after);
  EXPECT_TRUE(is_reader_gone(after.error()));
}

// A full disk ends a trace, but not an agent: it may have room again.
TEST(QueuedLines, ALineThatCannotBeWrittenIsCounted) {
  auto device = LineWriter::append_to("/dev/full");
  ASSERT_TRUE(device);
  QueuedLines lines(std::move(*device), kSmall);
  EXPECT_TRUE(lines.write("x\n"));
  ASSERT_TRUE(wait_for([&] { return !lines.trouble().empty(); }));
  EXPECT_NE(lines.trouble().find("free some space"), std::string::npos) << lines.trouble();
  EXPECT_EQ(lines.dropped(), (Drops{{"output_failed", 1}}));
  EXPECT_TRUE(lines.state()) << "the trace goes on";
}

TEST(QueuedLines, GivesUpAtTheEndAndCountsTheRest) {
  FullPipe pipe;
  QueuedLines lines(pipe.writer(), kSmall);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(lines.write(kLine));
  EXPECT_LT(seconds_of([&] { lines.finish(); }), 2);
  EXPECT_EQ(lines.dropped(), (Drops{{"output_full", 4}})) << "one is being written";
  EXPECT_EQ(lines.unwritten(), 5u);
  EXPECT_TRUE(lines.write(kLine));  // the last summary
  lines.finish();
  EXPECT_EQ(lines.unwritten(), 6u);
  EXPECT_EQ(pipe.read(1000), kLine);
}

TEST(QueuedLines, EndsThoughItsThreadHangs) {
  FullPipe pipe;
  EXPECT_LT(seconds_of([&] {
              QueuedLines lines(pipe.writer(), kSmall);
              EXPECT_TRUE(lines.write(kLine));
            }),
            2);
  EXPECT_EQ(pipe.read(1000), kLine) << "for the thread that was left behind to end";
}

TEST(QueuedLines, ReopensAfterARotation) {
  const std::string path = testing::TempDir() + "/rotated." + std::to_string(::getpid());
  ::unlink(path.c_str());
  auto file = LineWriter::append_to(path);
  ASSERT_TRUE(file);
  QueuedLines lines(std::move(*file));
  EXPECT_TRUE(lines.write("a\n"));
  lines.finish();
  ASSERT_EQ(::rename(path.c_str(), (path + ".1").c_str()), 0);
  ASSERT_TRUE(lines.reopen());
  EXPECT_TRUE(lines.write("b\n"));
  lines.finish();
  EXPECT_EQ(*read_file(path + ".1"), "a\n");
  EXPECT_EQ(*read_file(path), "b\n");
  ::unlink(path.c_str());
  ::unlink((path + ".1").c_str());
}

}  // namespace
}  // namespace looptrace
