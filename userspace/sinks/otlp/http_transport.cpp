// SPDX-License-Identifier: Apache-2.0
#include "sinks/otlp/http_transport.h"

// The types and numbers only: the functions come from the library at run time.
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#undef curl_easy_setopt
#undef curl_easy_getinfo

namespace looptrace {
namespace {

constexpr long kConnectMs = 5000, kWholeMs = 15'000;
constexpr size_t kMostAnswer = 64u << 10;

size_t keep_answer(const char* data, size_t size, size_t n, void* to) {
  auto& answer = *static_cast<std::string*>(to);
  answer.append(data, std::min(size * n, kMostAnswer - std::min(answer.size(), kMostAnswer)));
  return size * n;
}

int stop_if_aborted(void* flag, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return *static_cast<const std::atomic<bool>*>(flag) ? 1 : 0;
}

}  // namespace

struct HttpTransport::Curl {
  void* library = nullptr;
  decltype(&::curl_global_init) global_init = nullptr;
  decltype(&::curl_easy_init) easy_init = nullptr;
  decltype(&::curl_easy_setopt) set = nullptr;
  decltype(&::curl_easy_perform) perform = nullptr;
  decltype(&::curl_easy_getinfo) get = nullptr;
  decltype(&::curl_easy_cleanup) cleanup = nullptr;
  decltype(&::curl_easy_strerror) error_text = nullptr;
  decltype(&::curl_slist_append) append = nullptr;
  decltype(&::curl_slist_free_all) free_list = nullptr;

  CURL* handle = nullptr;
  curl_slist* headers = nullptr;
  std::string url;
  std::string answer;

  template <typename Function>
  bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
  }

  bool load() {
    // Never unloaded: the TLS library below it keeps state of its own, which would be lost with it.
    library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    return library && find(global_init, "curl_global_init") && find(easy_init, "curl_easy_init") &&
           find(set, "curl_easy_setopt") && find(perform, "curl_easy_perform") &&
           find(get, "curl_easy_getinfo") && find(cleanup, "curl_easy_cleanup") &&
           find(error_text, "curl_easy_strerror") && find(append, "curl_slist_append") &&
           find(free_list, "curl_slist_free_all");
  }

  void add_header(const std::string& line) { headers = append(headers, line.c_str()); }

  ~Curl() {
    if (headers) free_list(headers);
    if (handle) cleanup(handle);
    if (library) dlclose(library);
  }
};

HttpTransport::HttpTransport(std::unique_ptr<Curl> curl) : curl_(std::move(curl)) {}
HttpTransport::~HttpTransport() = default;

Result<std::unique_ptr<HttpTransport>> HttpTransport::open(const HttpUrl& url) {
  const char* given = std::getenv("OTEL_EXPORTER_OTLP_HEADERS");
  const auto headers = parse_otlp_headers(given ? given : "");
  if (!headers) return headers.error();
  auto curl = std::make_unique<Curl>();
  if (!curl->load()) return Error{"--otlp needs libcurl.so.4; install libcurl4", 0, Fault::unsupported};
  if (curl->global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(curl->handle = curl->easy_init()))
    return Error{"start libcurl"};
  curl->url = url.text;
  if (url.path.empty() || url.path == "/")
    curl->url = url.text.substr(0, url.text.size() - url.path.size()) + "/v1/logs";
  curl->add_header("Content-Type: application/json");
  curl->add_header("User-Agent: looptrace");
  curl->add_header("Expect:");  // no wait for 100 Continue
  for (const std::string& line : *headers) curl->add_header(line);
  CURL* handle = curl->handle;
  curl->set(handle, CURLOPT_URL, curl->url.c_str());
  curl->set(handle, CURLOPT_HTTPHEADER, curl->headers);
  curl->set(handle, CURLOPT_NOSIGNAL, 1L);
  curl->set(handle, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs);
  curl->set(handle, CURLOPT_TIMEOUT_MS, kWholeMs);
  curl->set(handle, CURLOPT_WRITEFUNCTION, keep_answer);
  curl->set(handle, CURLOPT_WRITEDATA, &curl->answer);
  curl->set(handle, CURLOPT_NOPROGRESS, 0L);
  curl->set(handle, CURLOPT_XFERINFOFUNCTION, stop_if_aborted);
  // A proxy of the environment is for other hosts.
  if (url.is_loopback()) curl->set(handle, CURLOPT_PROXY, "");
  if (const char* authorities = std::getenv("OTEL_EXPORTER_OTLP_CERTIFICATE"); authorities && *authorities)
    curl->set(handle, CURLOPT_CAINFO, authorities);
  return std::unique_ptr<HttpTransport>(new HttpTransport(std::move(curl)));
}

OtlpAnswer HttpTransport::post(const std::string& request, const std::atomic<bool>& abort) {
  Curl& curl = *curl_;
  curl.answer.clear();
  curl.set(curl.handle, CURLOPT_POSTFIELDS, request.data());
  curl.set(curl.handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.size()));
  curl.set(curl.handle, CURLOPT_XFERINFODATA, const_cast<std::atomic<bool>*>(&abort));
  const CURLcode code = curl.perform(curl.handle);
  if (code != CURLE_OK) {
    OtlpAnswer failed;
    failed.kind = OtlpAnswer::Kind::retry;
    failed.what = curl.url + " cannot be reached: " + curl.error_text(code);
    return failed;
  }
  long status = 0;
  curl_off_t wait = 0;
  curl.get(curl.handle, CURLINFO_RESPONSE_CODE, &status);
  curl.get(curl.handle, CURLINFO_RETRY_AFTER, &wait);
  OtlpAnswer answer = judge_answer(status, curl.answer, curl.url);
  if (wait > 0) answer.retry_after = std::chrono::seconds(wait);
  return answer;
}

}  // namespace looptrace
