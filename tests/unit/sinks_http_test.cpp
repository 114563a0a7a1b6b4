// SPDX-License-Identifier: Apache-2.0
// Clients of the metrics server that are slow, hostile, many, or gone: against the real server, on real
// sockets.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "sinks/metrics/http_server.h"

namespace looptrace {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

ListenAddress any_port(const char* text = "127.0.0.1:0") { return *parse_listen_address(text); }

// Limits short enough for a test, long enough for a loaded machine.
HttpLimits brisk() {
  HttpLimits limits;
  limits.connections = 4;
  limits.head_bytes = 1024;
  limits.read = 400ms;
  limits.write = 400ms;
  limits.linger = 200ms;
  return limits;
}

std::unique_ptr<HttpServer> serve(HttpLimits limits, size_t body_bytes = 5,
                                  const ListenAddress& address = any_port()) {
  auto body = std::make_shared<const std::string>(body_bytes, 'x');
  auto server = HttpServer::listen(address, limits, [body](const HttpRequest& request) {
    HttpResponse response;
    response.status = request.path == "/metrics" ? 200 : 404;
    response.body = body;
    return response;
  });
  EXPECT_TRUE(server) << server.error().message();
  return std::move(*server);
}

class Client {
 public:
  explicit Client(const HttpServer& server, int receive_buffer = 0) {
    const ListenAddress& at = server.address();
    fd_ = UniqueFd(::socket(at.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (receive_buffer) {
      ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    timeval limit{10, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    connected_ = ::connect(fd_.get(), at.get(), at.length) == 0;
  }
  bool connected() const { return connected_; }
  bool send(std::string_view text) {
    return ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  /// All until the server closes.
  std::string read_all() {
    std::string text;
    char chunk[65536];
    while (true) {
      const ssize_t n = ::recv(fd_.get(), chunk, sizeof chunk, 0);
      if (n <= 0) return text;
      text.append(chunk, static_cast<size_t>(n));
    }
  }
  std::string get(const std::string& path = "/metrics") {
    send("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n");
    return read_all();
  }

 private:
  UniqueFd fd_;
  bool connected_ = false;
};

int status_of(const std::string& response) {
  return response.starts_with("HTTP/1.1 ") ? std::stoi(response.substr(9, 3)) : 0;
}

TEST(Http, AnswersGetAndHeadOnBothFamilies) {
  for (const char* address : {"127.0.0.1:0", "[::1]:0"}) {
    auto at = any_port(address);
    if (at.is_v6() && !UniqueFd(::socket(AF_INET6, SOCK_STREAM, 0))) continue;
    const auto server = serve(brisk(), 5, at);
    const std::string whole = Client(*server).get();
    EXPECT_EQ(status_of(whole), 200) << address;
    EXPECT_TRUE(whole.ends_with("\r\n\r\nxxxxx")) << whole;
    EXPECT_NE(whole.find("Content-Length: 5\r\n"), std::string::npos);
    EXPECT_EQ(status_of(Client(*server).get("/metrics?x=1")), 200);
    EXPECT_EQ(status_of(Client(*server).get("/other")), 404);
    Client head(*server);
    head.send("HEAD /metrics HTTP/1.0\r\n\r\n");
    const std::string answer = head.read_all();
    EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
    EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  }
}

TEST(Http, ARequestMayComeInPieces) {
  const auto server = serve(HttpLimits());
  Client client(*server);
  for (const char c : std::string("GET /metrics HTTP/1.1\r\nAccept: a\r\n\r\n")) {
    ASSERT_TRUE(client.send(std::string(1, c)));
  }
  EXPECT_EQ(status_of(client.read_all()), 200);
}

TEST(Http, WhatIsNoRequestIsRefused) {
  const auto server = serve(brisk());
  const std::pair<std::string, int> cases[] = {
      {"POST /metrics HTTP/1.1\r\nContent-Length: 20000\r\n\r\n" + std::string(20000, 'b'), 405},
      {"\x16\x03\x01\x02\r\n\r\n", 400},  // a TLS client
      {"GET http://evil/metrics HTTP/1.1\r\n\r\n", 400},
      {"GET /metrics\r\n\r\n", 400},
      {"GET /metrics HTTP/2.0\r\n\r\n", 400},
      {"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", 400},
      {"\r\n\r\n", 400},
      {"GET /metrics HTTP/1.1\r\nX: " + std::string(5000, 'h') + "\r\n\r\n", 431},
      {std::string(5000, 'G'), 431},
      {"GET /metrics HTTP/1.1\n\n", 200},
  };
  for (const auto& [request, status] : cases) {
    Client client(*server);
    client.send(request);
    EXPECT_EQ(status_of(client.read_all()), status) << request.substr(0, 60);
  }
}

TEST(Http, OneThatKeepsItsRequestBackIsCutOff) {
  const auto server = serve(brisk());
  Client silent(*server);
  Client drip(*server);
  const auto since = Clock::now();
  std::thread dripping([&] {
    for (int i = 0; i < 200 && drip.send("G"); ++i) std::this_thread::sleep_for(20ms);
  });
  EXPECT_EQ(status_of(silent.read_all()), 408);
  EXPECT_GE(Clock::now() - since, 390ms);
  EXPECT_EQ(status_of(drip.read_all()), 408);
  EXPECT_LT(Clock::now() - since, 4s);
  dripping.join();
}

TEST(Http, OneThatDoesNotReadIsCutOff) {
  constexpr size_t kBody = 64u << 20;  // more than the kernel's buffers hold
  const auto server = serve(brisk(), kBody);
  Client lazy(*server, 4096);
  lazy.send("GET /metrics HTTP/1.1\r\n\r\n");
  std::this_thread::sleep_for(1500ms);
  EXPECT_LT(lazy.read_all().size(), kBody);
}

TEST(Http, SlowClientsDoNotLockOutOthers) {
  HttpLimits limits = brisk();
  limits.read = 60s;
  limits.write = 60s;
  const auto server = serve(limits);
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 50; ++i) {
    idle.push_back(std::make_unique<Client>(*server));
    ASSERT_TRUE(idle.back()->connected());
    idle.back()->send("GET /metr");
    if (i % 10 == 9) {
      EXPECT_EQ(status_of(Client(*server).get()), 200) << i;
    }
  }
  EXPECT_EQ(status_of(Client(*server).get()), 200);
}

TEST(Http, OneThatReadsSlowlyMakesWayLast) {
  HttpLimits limits = brisk();
  limits.read = 60s;
  limits.write = 60s;
  constexpr size_t kBody = 8u << 20;
  const auto server = serve(limits, kBody);
  Client reading(*server, 65536);
  reading.send("GET /metrics HTTP/1.1\r\n\r\n");
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 20; ++i) idle.push_back(std::make_unique<Client>(*server));
  EXPECT_GT(reading.read_all().size(), kBody);
}

TEST(Http, SurvivesNoise) {
  const auto server = serve(brisk());
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    Client client(*server);
    std::string noise(random() % 3000, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    if (i % 3 == 0) noise = "GET /metrics HTTP/1.1\r\n" + noise;
    client.send(noise);
  }
  EXPECT_EQ(status_of(Client(*server).get()), 200);
}

TEST(Http, ScrapersInParallelAllGetTheWholePage) {
  constexpr size_t kBody = 1u << 20;
  const auto server = serve(HttpLimits(), kBody);
  std::atomic<int> whole{0};
  {
    std::vector<std::jthread> scrapers;
    for (int i = 0; i < 8; ++i) {
      scrapers.emplace_back([&] {
        for (int n = 0; n < 5; ++n) whole += Client(*server).get().size() > kBody;
      });
    }
  }
  EXPECT_EQ(whole, 40);
}

TEST(Http, AnIdleServerUsesNoTime) {
  const auto server = serve(brisk());
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  std::this_thread::sleep_for(300ms);
  getrusage(RUSAGE_SELF, &after);
  const auto us = [](const timeval& t) { return t.tv_sec * 1'000'000 + t.tv_usec; };
  EXPECT_LT(us(after.ru_utime) + us(after.ru_stime) - us(before.ru_utime) - us(before.ru_stime), 20'000);
}

TEST(Http, TellsThatThePortIsTaken) {
  const auto server = serve(brisk());
  const auto second = HttpServer::listen(server->address(), brisk(), nullptr);
  ASSERT_FALSE(second);
  const std::string message = second.error().message();
  EXPECT_NE(message.find(server->address().text()), std::string::npos) << message;
  EXPECT_NE(message.find("another program has this port"), std::string::npos) << message;
}

TEST(Http, EndsWithItsConnections) {
  auto server = serve(HttpLimits());
  Client waiting(*server);
  waiting.send("GET ");
  const auto since = Clock::now();
  server.reset();
  EXPECT_LT(Clock::now() - since, 2s);
  EXPECT_EQ(waiting.read_all(), "");
}

}  // namespace
}  // namespace looptrace
