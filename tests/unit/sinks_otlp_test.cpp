// SPDX-License-Identifier: Apache-2.0
// What is sent to a collector, and what becomes of it where the collector is slow, away or refuses. The last
// tests go through libcurl to a real socket; they skip where it is not installed.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/fd.h"
#include "sinks/otlp/http_transport.h"
#include "sinks/otlp/otlp_sink.h"
#include "sinks_sample.h"

namespace looptrace {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using Kind = OtlpAnswer::Kind;

const HostInfo kHost = {"n1", "0f1e2d"};

Stall sample() {
  Stall s = contract_stall();
  s.thread_id = 102;
  s.thread_name = "loop";
  s.cause_detail = "poll on tcp [::1]:5432";
  s.waits[0].target->peer = "[::1]:5432";
  s.fingerprint = "9f1c2e";
  Stack stack;
  stack.state = StackState::blocked;
  stack.frames = {frame(FrameKind::native, "poll", "", 0, "libc.so.6", FrameOrigin::runtime), *s.culprit};
  s.stacks = {stack};
  return s;
}

// {"key": value} of an array of OTLP's KeyValue; 64-bit integers must be strings.
std::map<std::string, std::string> attributes(const Json& array) {
  std::map<std::string, std::string> found;
  for (const Json& pair : array) {
    EXPECT_EQ(pair.size(), 2u) << pair;
    const Json& value = pair.at("value");
    EXPECT_EQ(value.size(), 1u) << pair;
    const auto text =
        value.contains("doubleValue") ? value["doubleValue"].dump() : value.begin()->get<std::string>();
    EXPECT_TRUE(found.emplace(pair.at("key"), text).second) << "twice: " << pair;
  }
  return found;
}

TEST(Otlp, AStallBecomesALogRecord) {
  const std::vector<OtlpRecord> records{otlp_stall(sample(), kHost)};
  const Json request = Json::parse(otlp_request(records, "0.1.0"));
  ASSERT_EQ(request["resourceLogs"].size(), 1u);
  const Json& of_resource = request["resourceLogs"][0];
  auto resource = attributes(of_resource["resource"]["attributes"]);
  EXPECT_EQ(resource["host.name"], "n1");
  EXPECT_EQ(resource["service.name"], "server");
  EXPECT_EQ(resource["process.pid"], "101");
  EXPECT_EQ(resource["process.executable.name"], "python3.11");
  EXPECT_EQ(resource["container.id"], "3f4e9c0a");
  EXPECT_EQ(resource["k8s.pod.name"], "web-1");
  EXPECT_EQ(of_resource["scopeLogs"][0]["scope"], (Json{{"name", "looptrace"}, {"version", "0.1.0"}}));
  const Json& record = of_resource["scopeLogs"][0]["logRecords"][0];
  EXPECT_EQ(record["timeUnixNano"], "1795424400123456789");
  EXPECT_EQ(record["observedTimeUnixNano"], "1795424400329041789");
  EXPECT_EQ(record["severityNumber"], 13);
  EXPECT_EQ(record["severityText"], "WARN");
  EXPECT_EQ(record["eventName"], "looptrace.stall");
  EXPECT_TRUE(record["body"]["stringValue"].get<std::string>().find(
                  "loop stalled 205 ms: network wait in poll") != std::string::npos);
  auto have = attributes(record["attributes"]);
  EXPECT_EQ(have["looptrace.id"], "n1-5f3a-42");
  EXPECT_EQ(have["looptrace.state"], "closed");
  EXPECT_EQ(have["thread.id"], "102");
  EXPECT_EQ(have["looptrace.duration_ns"], "205585000");
  EXPECT_EQ(have["looptrace.time_ns.blocked"], "204300000");
  EXPECT_EQ(have["looptrace.cause.kind"], "network");
  EXPECT_EQ(have["code.function.name"], "run_query");
  EXPECT_EQ(have["code.line.number"], "7");
  EXPECT_EQ(have["code.stacktrace"], "poll (libc.so.6)\nrun_query (/srv/app.py:7)\n");
  EXPECT_EQ(have["network.transport"], "tcp");
  EXPECT_EQ(have["network.peer.address"], "::1");
  EXPECT_EQ(have["network.peer.port"], "5432");
  EXPECT_EQ(have["looptrace.wait.woken_by.comm"], "postgres");
  EXPECT_EQ(have["looptrace.sample.weight"], "1.0");
  EXPECT_FALSE(have.contains("looptrace.ended_by")) << "what does not apply is absent";
}

TEST(Otlp, RecordsOfOneResourceTravelTogether) {
  Stall other = sample();
  other.process.pid = 102;
  const std::vector<OtlpRecord> records{otlp_stall(sample(), kHost), otlp_stall(other, kHost),
                                        otlp_stall(sample(), kHost),
                                        otlp_warning({1, "code", "text"}, kHost)};
  const Json request = Json::parse(otlp_request(records, "0.1.0"));
  std::multiset<size_t> sizes;
  for (const Json& of_resource : request["resourceLogs"])
    sizes.insert(of_resource["scopeLogs"][0]["logRecords"].size());
  EXPECT_EQ(sizes, (std::multiset<size_t>{1, 1, 2}));
}

TEST(Otlp, WindowsAndSampledStallsAreTold) {
  WindowRecord window;
  window.number = 29'923'740;
  window.active = true;
  window.stalls = {4000, 1, 200};
  window.dropped = {{"sampled", 3800}};
  Stall sampled = sample();
  sampled.sample_weight = 21.5;
  sampled.sample = SampleInfo{29'923'740, 0.05};
  const std::vector<OtlpRecord> records{otlp_window(window, kHost), otlp_stall(sampled, kHost)};
  const Json request = Json::parse(otlp_request(records, "0.1.0"));
  std::map<std::string, std::map<std::string, std::string>> events;
  for (const Json& of_resource : request["resourceLogs"]) {
    const Json& record = of_resource["scopeLogs"][0]["logRecords"][0];
    events[record["eventName"]] = attributes(record["attributes"]);
  }
  EXPECT_EQ(events["looptrace.window"]["looptrace.seen"], "4000");
  EXPECT_EQ(events["looptrace.window"]["looptrace.dropped.sampled"], "3800");
  EXPECT_EQ(events["looptrace.stall"]["looptrace.sample.weight"], "21.5");
  EXPECT_EQ(events["looptrace.stall"]["looptrace.sample.window"], "29923740");
}

TEST(Otlp, HostileTextStaysJson) {
  Stall s = sample();
  s.process.comm = "a\"},{\n\xff\x01";
  s.culprit->function = std::string(50'000, '\xfe');
  s.stacks[0].frames.assign(200, *s.culprit);
  s.waits[0].target->peer = "[]:99999999999999999999";
  const std::vector<OtlpRecord> records{otlp_stall(s, kHost)};
  const std::string request = otlp_request(records, "0.1.0");
  const Json json = Json::parse(request, nullptr, false);
  ASSERT_FALSE(json.is_discarded());
  EXPECT_LT(request.size(), 40'000u);
}

// Answers as it is told to, and keeps what came.
class Fake : public OtlpTransport {
 public:
  struct Script {
    std::mutex mutex;
    std::deque<OtlpAnswer> answers;  // the last one stays
    std::vector<std::pair<std::chrono::steady_clock::time_point, Json>> posts;
    std::atomic<bool> hangs{false};
    size_t records() {
      std::lock_guard lock(mutex);
      size_t n = 0;
      for (const auto& [time, request] : posts) {
        for (const Json& r : request["resourceLogs"]) n += r["scopeLogs"][0]["logRecords"].size();
      }
      return n;
    }
  };
  explicit Fake(std::shared_ptr<Script> script) : script_(std::move(script)) {}
  OtlpAnswer post(const std::string& request, const std::atomic<bool>& abort) override {
    while (script_->hangs && !abort) std::this_thread::sleep_for(1ms);
    std::lock_guard lock(script_->mutex);
    script_->posts.emplace_back(std::chrono::steady_clock::now(), Json::parse(request));
    if (abort) return answer(Kind::retry);
    OtlpAnswer next = script_->answers.front();
    if (script_->answers.size() > 1) script_->answers.pop_front();
    return next;
  }
  static OtlpAnswer answer(Kind kind, uint64_t rejected = 0) {
    OtlpAnswer a;
    a.kind = kind;
    a.rejected = rejected;
    if (kind != Kind::accepted) a.what = "trouble";
    return a;
  }

 private:
  std::shared_ptr<Script> script_;
};

OtlpExporter::Limits brisk() {
  OtlpExporter::Limits limits;
  limits.gather = 20ms;
  limits.attempts = 3;
  limits.first_pause = 20ms;
  limits.longest_pause = 300ms;
  limits.finish = 2000ms;
  return limits;
}

struct Exporter {
  std::shared_ptr<Fake::Script> script = std::make_shared<Fake::Script>();
  std::unique_ptr<OtlpExporter> exporter;
  explicit Exporter(std::deque<OtlpAnswer> answers, OtlpExporter::Limits limits = brisk()) {
    script->answers = std::move(answers);
    exporter = std::make_unique<OtlpExporter>(std::make_unique<Fake>(script), limits, "0.1.0");
  }
  void push(int n) {
    for (int i = 0; i < n; ++i) exporter->push(otlp_warning({1, "code", "text"}, kHost));
  }
  template <typename Condition>
  bool wait(Condition condition) {
    for (int i = 0; i < 500; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
};

using Drops = std::map<std::string, uint64_t>;

TEST(OtlpExporter, SendsInBatchesAndAllOfItAtTheEnd) {
  OtlpExporter::Limits limits = brisk();
  limits.gather = 60'000ms;
  limits.batch_records = 10;
  Exporter e({Fake::answer(Kind::accepted)}, limits);
  e.push(10);
  ASSERT_TRUE(e.wait([&] { return e.script->records() == 10; })) << "a full batch does not wait";
  e.push(25);
  ASSERT_TRUE(e.wait([&] { return e.script->records() == 30; }));
  e.exporter->finish();
  EXPECT_EQ(e.script->records(), 35u);
  EXPECT_EQ(e.script->posts.size(), 4u);
  e.push(1);
  e.exporter.reset();
  EXPECT_EQ(e.script->records(), 36u) << "what comes after, such as the last summary";
}

TEST(OtlpExporter, TriesAgainLaterEachTimeThenDrops) {
  Exporter e({Fake::answer(Kind::retry)});
  e.push(3);
  ASSERT_TRUE(e.wait([&] { return !e.exporter->dropped().empty(); }));
  EXPECT_EQ(e.exporter->dropped(), (Drops{{"otlp_unreachable", 3}}));
  EXPECT_FALSE(e.exporter->state());
  ASSERT_EQ(e.script->posts.size(), 3u);
  EXPECT_GE(e.script->posts[1].first - e.script->posts[0].first, 15ms);
  EXPECT_GE(e.script->posts[2].first - e.script->posts[1].first, 30ms);
  EXPECT_EQ(e.script->posts[0].second, e.script->posts[2].second) << "the same batch";
}

TEST(OtlpExporter, RecoversWithNothingLost) {
  Exporter e({Fake::answer(Kind::retry), Fake::answer(Kind::retry), Fake::answer(Kind::accepted)});
  e.push(3);
  ASSERT_TRUE(e.wait([&] { return e.script->records() == 9; }));
  ASSERT_TRUE(e.wait([&] { return e.exporter->state().has_value(); }));
  EXPECT_EQ(e.exporter->dropped(), Drops());
}

TEST(OtlpExporter, WaitsAsLongAsItIsAskedToButNotForever) {
  OtlpAnswer busy = Fake::answer(Kind::retry);
  busy.retry_after = std::chrono::seconds(3600);
  Exporter e({busy, Fake::answer(Kind::accepted)});
  e.push(1);
  ASSERT_TRUE(e.wait([&] { return e.script->records() == 2; }));
  EXPECT_GE(e.script->posts[1].first - e.script->posts[0].first, 300ms);
}

TEST(OtlpExporter, CountsWhatTheCollectorRejects) {
  Exporter e({Fake::answer(Kind::refused), Fake::answer(Kind::accepted, 2)});
  e.push(3);
  ASSERT_TRUE(e.wait([&] { return e.exporter->dropped()["otlp_rejected"] == 3; }));
  EXPECT_EQ(e.script->posts.size(), 1u) << "not tried again";
  e.push(4);
  ASSERT_TRUE(e.wait([&] { return e.exporter->dropped()["otlp_rejected"] == 5; }));
  EXPECT_EQ(e.exporter->dropped(), (Drops{{"otlp_rejected", 5}}));
}

TEST(OtlpExporter, ACollectorThatHangsHoldsUpNobody) {
  OtlpExporter::Limits limits = brisk();
  limits.queue_bytes = 10'000;
  limits.finish = 200ms;
  Exporter e({Fake::answer(Kind::accepted)}, limits);
  e.script->hangs = true;
  const auto since = std::chrono::steady_clock::now();
  e.push(1000);
  EXPECT_LT(std::chrono::steady_clock::now() - since, 2s);
  EXPECT_GT(e.exporter->dropped()["otlp_queue_full"], 900u);
  e.exporter->finish();
  EXPECT_LT(std::chrono::steady_clock::now() - since, 5s);
  const Drops dropped = e.exporter->dropped();
  EXPECT_EQ(dropped.at("otlp_queue_full") + dropped.at("otlp_unreachable"), 1000u) << "each one is counted";
}

// An exporter stays over a restart of the trace: its last summary is not the end.
TEST(OtlpExporter, GoesOnAsEverAfterItHasFinished) {
  OtlpExporter::Limits limits = brisk();
  limits.finish = 200ms;
  Exporter e({Fake::answer(Kind::retry), Fake::answer(Kind::retry), Fake::answer(Kind::accepted)}, limits);
  e.script->hangs = true;
  e.push(1);
  e.exporter->finish();  // aborts what hangs
  ASSERT_EQ(e.exporter->dropped(), (Drops{{"otlp_unreachable", 1}}));
  e.script->hangs = false;
  e.push(3);
  ASSERT_TRUE(e.wait([&] { return e.exporter->state().has_value(); })) << "it was not tried again";
  EXPECT_EQ(e.script->records(), 1u + 3 * 3) << "two attempts that failed, and one";
  EXPECT_EQ(e.exporter->dropped(), (Drops{{"otlp_unreachable", 1}}));
}

TEST(OtlpAnswer, StatusesMeanWhatTheProtocolSays) {
  EXPECT_EQ(judge_answer(200, "{}", "u").kind, Kind::accepted);
  EXPECT_EQ(judge_answer(200, "not json", "u").kind, Kind::accepted);
  for (const long status : {429, 502, 503, 504}) EXPECT_EQ(judge_answer(status, "", "u").kind, Kind::retry);
  for (const long status : {301, 400, 401, 404, 413, 500, 501})
    EXPECT_EQ(judge_answer(status, "", "u").kind, Kind::refused);
  const OtlpAnswer partial =
      judge_answer(200, R"({"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too old"}})", "u");
  EXPECT_EQ(partial.rejected, 3u);
  EXPECT_EQ(partial.what, "u rejected records: too old");
  EXPECT_EQ(judge_answer(200, R"({"partialSuccess":{"rejectedLogRecords":4}})", "u").rejected, 4u);
  EXPECT_EQ(judge_answer(200, R"({"partialSuccess":{"rejectedLogRecords":-4}})", "u").rejected, 0u);
  EXPECT_EQ(judge_answer(401, "no\r\n\x1b[31mtoken" + std::string(5000, 'x'), "u").what.find('\x1b'),
            std::string::npos);
}

TEST(OtlpHeaders, AreThoseOfTheEnvironment) {
  EXPECT_EQ(*parse_otlp_headers(""), std::vector<std::string>());
  EXPECT_EQ(*parse_otlp_headers("Authorization=Bearer%20a=b, X-Scope = 1 ,"),
            (std::vector<std::string>{"Authorization: Bearer a=b", "X-Scope: 1"}));
  for (const char* wrong : {"novalue", "=v", "a b=c", "a=b%0d%0aEvil: 1", "a:b=c"}) {
    const auto headers = parse_otlp_headers(wrong);
    ASSERT_FALSE(headers) << wrong;
    EXPECT_EQ(headers.error().fault, Fault::usage);
  }
}

// A collector of one answer.
class Server {
 public:
  explicit Server(std::string answer) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof at;
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&at), length), 0);
    EXPECT_EQ(::listen(fd_.get(), 4), 0);
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&at), &length), 0);
    port = ntohs(at.sin_port);
    thread_ = std::thread([this, answer = std::move(answer)] {
      const UniqueFd client(::accept(fd_.get(), nullptr, nullptr));
      char chunk[4096];
      while (request.find("\"text\"") == std::string::npos) {
        const ssize_t n = ::recv(client.get(), chunk, sizeof chunk, 0);
        if (n <= 0) return;
        request.append(chunk, static_cast<size_t>(n));
      }
      (void)::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    });
  }
  ~Server() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  std::string request;
  uint16_t port = 0;

 private:
  UniqueFd fd_;
  std::thread thread_;
};

Result<std::unique_ptr<HttpTransport>> open(const std::string& url) {
  return HttpTransport::open(*parse_http_url(url));
}

#define NEEDS_CURL(transport)                                          \
  if (!(transport) && (transport).error().fault == Fault::unsupported) \
  GTEST_SKIP() << (transport).error().message()

TEST(OtlpHttp, PostsJsonToTheLogsPath) {
  ::setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Scope=team%201", 1);
  Server server("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy");
  auto transport = open("http://127.0.0.1:" + std::to_string(server.port));
  ::unsetenv("OTEL_EXPORTER_OTLP_HEADERS");
  NEEDS_CURL(transport);
  const std::atomic<bool> abort{false};
  const OtlpAnswer answer = (*transport)->post(R"({"k":"text"})", abort);
  server.join();
  EXPECT_TRUE(server.request.starts_with("POST /v1/logs HTTP/1.1\r\n")) << server.request;
  EXPECT_NE(server.request.find("Content-Type: application/json\r\n"), std::string::npos);
  EXPECT_NE(server.request.find("X-Scope: team 1\r\n"), std::string::npos);
  EXPECT_TRUE(server.request.ends_with("\r\n\r\n{\"k\":\"text\"}"));
  EXPECT_EQ(answer.kind, Kind::retry);
  EXPECT_EQ(answer.retry_after, std::chrono::seconds(7));
  EXPECT_NE(answer.what.find("answered 503: busy"), std::string::npos) << answer.what;
}

TEST(OtlpHttp, NobodyThereIsTriedAgain) {
  auto transport = open("http://127.0.0.1:1/some/path");
  NEEDS_CURL(transport);
  const std::atomic<bool> abort{false};
  const OtlpAnswer answer = (*transport)->post("{}", abort);
  EXPECT_EQ(answer.kind, Kind::retry);
  EXPECT_NE(answer.what.find("http://127.0.0.1:1/some/path cannot be reached"), std::string::npos)
      << answer.what;
}

}  // namespace
}  // namespace looptrace
