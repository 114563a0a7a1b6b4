// SPDX-License-Identifier: Apache-2.0
// The queue to the worker: bounded by bytes, in order, and it lets go of who waits.
#include <gtest/gtest.h>

#include <thread>

#include "trace/queue.h"

namespace looptrace {
namespace {

using std::chrono::milliseconds;

Message of_size(size_t bytes) {
  Message m;
  m.bytes.resize(bytes);
  return m;
}

TEST(Queue, RefusesWhatGoesBeyondItsBytesAndTakesMoreWhenEmptied) {
  MessageQueue queue(1000 + 2 * sizeof(Message));
  EXPECT_TRUE(queue.push(of_size(500)));
  EXPECT_TRUE(queue.push(of_size(500)));
  EXPECT_FALSE(queue.push(of_size(500)));
  EXPECT_EQ(queue.take(milliseconds(0)).size(), 2u);
  EXPECT_TRUE(queue.push(of_size(500)));
}

TEST(Queue, MessagesWithoutBytesAreBoundedToo) {
  MessageQueue queue(10 * sizeof(Message));
  int taken = 0;
  while (taken < 1000 && queue.push(Message{})) ++taken;
  EXPECT_LE(taken, 11);
}

TEST(Queue, QuestionsLeaveRoomForWhatHasHappened) {
  MessageQueue queue(100 * sizeof(Message));
  Message question;
  question.kind = Message::Kind::open_due;
  int asked = 0;
  while (asked < 1000 && queue.push(question)) ++asked;
  EXPECT_LE(asked, 26);
  EXPECT_TRUE(queue.push(Message{}));
}

TEST(Queue, HandsOutLittleAtATime) {
  MessageQueue queue(16u << 20);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(queue.push(of_size(10'000)));
  size_t taken = 0;
  for (auto batch = queue.take(milliseconds(0)); !batch.empty(); batch = queue.take(milliseconds(0))) {
    EXPECT_LE(batch.size(), 30u);
    taken += batch.size();
  }
  EXPECT_EQ(taken, 1000u);
}

TEST(Queue, KeepsTheOrder) {
  MessageQueue queue(1 << 20);
  for (uint32_t i = 0; i < 100; ++i) {
    Message m;
    m.slot = i;
    queue.push(std::move(m));
  }
  uint32_t next = 0;
  for (const Message& m : queue.take(milliseconds(0))) EXPECT_EQ(m.slot, next++);
  EXPECT_EQ(next, 100u);
}

TEST(Queue, StopWakesWhoWaits) {
  MessageQueue queue(1 << 20);
  std::jthread stopper([&] {
    std::this_thread::sleep_for(milliseconds(20));
    queue.stop();
  });
  const auto from = std::chrono::steady_clock::now();
  EXPECT_TRUE(queue.take(std::chrono::seconds(10)).empty());
  EXPECT_LT(std::chrono::steady_clock::now() - from, std::chrono::seconds(5));
}

TEST(Queue, WhatOneThreadPushesAnotherTakesWhole) {
  MessageQueue queue(64 << 10);
  size_t pushed = 0, taken = 0;
  std::jthread producer([&] {
    for (int i = 0; i < 20'000; ++i) pushed += queue.push(of_size(static_cast<size_t>(i % 100)));
    queue.stop();
  });
  for (int idle = 0; idle < 2;) {
    const auto batch = queue.take(milliseconds(50));
    taken += batch.size();
    if (batch.empty()) ++idle;
  }
  producer.join();
  taken += queue.take(milliseconds(0)).size();
  EXPECT_EQ(taken, pushed);
}

}  // namespace
}  // namespace looptrace
