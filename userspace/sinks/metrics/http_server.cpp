// SPDX-License-Identifier: Apache-2.0
#include "sinks/metrics/http_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <list>
#include <vector>

namespace looptrace {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBacklog = 64;
// After the response, what a client still sends is read and forgotten: closing with unread bytes would reset
// the connection, and the response with it.
constexpr size_t kMostIgnored = 64u << 10;
// With no descriptor left, accept() fails and the listener stays readable.
constexpr std::chrono::milliseconds kAcceptPause{200};

const char* reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

HttpResponse refusal(int status, const std::string& why) {
  return {status, "text/plain; charset=utf-8", std::make_shared<const std::string>(why + "\n")};
}

Error listen_failure(const ListenAddress& address, int err) {
  std::string what = "serve metrics on " + address.text();
  if (err == EADDRINUSE)
    what += " (another program has this port; --metrics, or listen in the agent's [metrics], names one)";
  if (err == EADDRNOTAVAIL) what += " (no interface of this host has this address)";
  if (err == EACCES) what += " (ports below 1024 need CAP_NET_BIND_SERVICE)";
  return {what, err};
}

}  // namespace

struct HttpServer::Connection {
  enum class State { reading, writing, lingering };

  UniqueFd fd;
  State state = State::reading;
  Clock::time_point since, deadline;
  std::string received;
  HttpResponse response;
  std::string head;  // of the response
  size_t sent = 0;   // of head and body together
  size_t ignored = 0;
  bool done = false;
};

class HttpServer::Loop {
 public:
  explicit Loop(HttpServer& server) : server_(server) {}

  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      wait();
      const auto now = Clock::now();
      // Requests that are here before new connections: none of these makes way for the others.
      for (size_t i = 2; i < fds_.size(); ++i) {
        if (fds_[i].revents) advance(*watched_[i - 2]);
      }
      for (Connection& c : connections_) expire(c, now);
      connections_.remove_if([](const Connection& c) { return c.done; });
      if (fds_[1].revents) accept_all();
    }
  }

 private:
  void wait() {
    const auto now = Clock::now();
    const bool accepting = now >= accept_again_;
    auto next = accepting ? Clock::time_point::max() : accept_again_;
    fds_.assign({{server_.wake_.fd(), POLLIN, 0}, {accepting ? server_.listener_.get() : -1, POLLIN, 0}});
    watched_.clear();
    for (Connection& c : connections_) {
      fds_.push_back(
          {c.fd.get(), static_cast<short>(c.state == Connection::State::writing ? POLLOUT : POLLIN), 0});
      watched_.push_back(&c);
      next = std::min(next, c.deadline);
    }
    int timeout = -1;
    if (next != Clock::time_point::max()) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - now).count() + 1;
      timeout = static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
    }
    if (::poll(fds_.data(), fds_.size(), timeout) < 0) {
      for (pollfd& fd : fds_) fd.revents = 0;
    }
  }

  void accept_all() {
    while (true) {
      UniqueFd fd(::accept4(server_.listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno != EAGAIN) accept_again_ = Clock::now() + kAcceptPause;
        return;
      }
      if (connections_.size() >= server_.limits_.connections) evict();
      Connection c;
      c.fd = std::move(fd);
      c.since = Clock::now();
      c.deadline = c.since + server_.limits_.read;
      connections_.push_back(std::move(c));
      advance(connections_.back());  // a client on this host has often sent its request by now
      if (connections_.back().done) connections_.pop_back();
    }
  }

  // The one that lingers, else keeps back its request, else reads its response, the longest.
  void evict() {
    const auto rank = [](const Connection& c) {
      const int usefulness = c.state == Connection::State::lingering ? 0
                             : c.state == Connection::State::reading ? 1
                                                                     : 2;
      return std::pair(usefulness, c.since);
    };
    connections_.erase(
        std::min_element(connections_.begin(), connections_.end(),
                         [&](const Connection& a, const Connection& b) { return rank(a) < rank(b); }));
  }

  void expire(Connection& c, Clock::time_point now) {
    if (c.done || now < c.deadline) return;
    if (c.state == Connection::State::reading) {
      respond(c, refusal(408, "the request did not come in time"), false);
      write(c);
    } else {
      c.done = true;
    }
  }

  void advance(Connection& c) {
    if (c.state == Connection::State::reading) read(c);
    if (c.state == Connection::State::writing) write(c);
    if (c.state == Connection::State::lingering) linger(c);
  }

  void read(Connection& c) {
    std::array<char, 4096> chunk;
    while (c.state == Connection::State::reading) {
      const ssize_t n = ::recv(c.fd.get(), chunk.data(), chunk.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) {
        c.done = true;
        return;
      }
      c.received.append(chunk.data(), static_cast<size_t>(n));
      answer_if_whole(c);
    }
  }

  void answer_if_whole(Connection& c) {
    const auto length = head_length(c.received);
    if (length.value_or(c.received.size()) > server_.limits_.head_bytes) {
      respond(c, refusal(431, "the request's head is too long"), false);
      return;
    }
    if (!length) return;
    const auto request = parse_head(std::string_view(c.received).substr(0, *length));
    if (!request) {
      respond(c, refusal(400, request.error().what), false);
    } else if (request->method != "GET" && request->method != "HEAD") {
      respond(c, refusal(405, "there is only GET here"), false);
    } else {
      respond(c, server_.handler_(*request), request->method == "HEAD");
    }
  }

  void respond(Connection& c, HttpResponse response, bool head_only) {
    c.received = {};
    c.head = "HTTP/1.1 " + std::to_string(response.status) + ' ' + reason_of(response.status) +
             "\r\nContent-Type: " + response.content_type +
             "\r\nContent-Length: " + std::to_string(response.body->size()) + "\r\nConnection: close\r\n";
    if (response.status == 405) c.head += "Allow: GET, HEAD\r\n";
    c.head += "\r\n";
    if (head_only) response.body = std::make_shared<const std::string>();
    c.response = std::move(response);
    c.state = Connection::State::writing;
    c.deadline = Clock::now() + server_.limits_.write;
  }

  void write(Connection& c) {
    const std::string& body = *c.response.body;
    while (c.sent < c.head.size() + body.size()) {
      const bool in_head = c.sent < c.head.size();
      const std::string_view rest = in_head ? std::string_view(c.head).substr(c.sent)
                                            : std::string_view(body).substr(c.sent - c.head.size());
      const ssize_t n = ::send(c.fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) {
        c.done = true;
        return;
      }
      c.sent += static_cast<size_t>(n);
    }
    ::shutdown(c.fd.get(), SHUT_WR);
    c.response.body.reset();
    c.state = Connection::State::lingering;
    c.deadline = Clock::now() + server_.limits_.linger;
    linger(c);
  }

  static void linger(Connection& c) {
    std::array<char, 4096> chunk;
    while (!c.done) {
      const ssize_t n = ::recv(c.fd.get(), chunk.data(), chunk.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n > 0) c.ignored += static_cast<size_t>(n);
      c.done = n <= 0 || c.ignored > kMostIgnored;
    }
  }

  HttpServer& server_;
  std::list<Connection> connections_;
  std::vector<pollfd> fds_;           // the wake-up, the listener, then one a connection
  std::vector<Connection*> watched_;  // of fds_ from the third on
  Clock::time_point accept_again_;
};

HttpServer::HttpServer(UniqueFd listener, ListenAddress address, HttpLimits limits, Handler handler)
    : listener_(std::move(listener)),
      address_(address),
      limits_(limits),
      handler_(std::move(handler)),
      thread_([this](const std::stop_token& stop) { Loop(*this).run(stop); }) {}

HttpServer::~HttpServer() {
  thread_.request_stop();
  wake_.send();
  thread_.join();
}

Result<std::unique_ptr<HttpServer>> HttpServer::listen(const ListenAddress& address, HttpLimits limits,
                                                       Handler handler) {
  UniqueFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return listen_failure(address, errno);
  const int on = 1, off = 0;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // [::] is every address of this host, those of IPv4 too.
  if (address.is_v6()) (void)::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (::bind(fd.get(), address.get(), address.length) != 0) return listen_failure(address, errno);
  if (::listen(fd.get(), kBacklog) != 0) return listen_failure(address, errno);
  ListenAddress bound;
  bound.length = sizeof bound.storage;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound.storage), &bound.length) != 0)
    return listen_failure(address, errno);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(fd), bound, limits, std::move(handler)));
}

}  // namespace looptrace
