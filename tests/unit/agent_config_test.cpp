// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "agent/config.h"
#include "base/files.h"
#include "cli/config_file.h"

namespace looptrace {
namespace {

/// A file that lives as long as this.
class File {
 public:
  explicit File(const std::string& text) {
    const int fd = mkstemp(path_);
    close(fd);
    std::ofstream(path_) << text;
  }
  ~File() { unlink(path_); }
  std::string path() const { return path_; }

 private:
  char path_[32] = "/tmp/looptrace-conf-XXXXXX";
};

Result<AgentConfig> load(const std::string& text,
                         const std::map<std::string, std::string>& environment = {}) {
  const File file(text);
  return load_agent_config(file.path(), environment);
}

std::string error_of(const std::string& text, const std::map<std::string, std::string>& environment = {}) {
  const auto config = load(text, environment);
  EXPECT_FALSE(config) << text;
  if (config) return "";
  EXPECT_EQ(config.error().fault, Fault::usage);
  const std::string message = config.error().message();
  return message.starts_with("/tmp/looptrace-conf-") ? message.substr(26) : message;
}

TEST(AgentConfig, DefaultsWithoutAFile) {
  const auto config = load_agent_config("", {});
  ASSERT_TRUE(config);
  EXPECT_EQ(config->trace.threshold_ns, 50'000'000u);
  EXPECT_EQ(config->windows.window_ns, 60'000'000'000u);
  EXPECT_EQ(config->windows.probability, 1);
  EXPECT_EQ(config->windows.budget.cpu, 0.005);
  ASSERT_TRUE(config->metrics_listen);
  EXPECT_EQ(config->metrics_listen->text(), "127.0.0.1:9464");
  EXPECT_FALSE(config->windows.host.empty());
}

TEST(AgentConfig, EveryKindOfValue) {
  const auto config = load(R"(
# a comment
[targets]
comm = ["web-*", "api"]   # another
exe = "/srv/bin/*"
[trace]
threshold = "20ms"
hook = never
stacks = false
[sampling]
window = 30s
probability = "5%"
seed = "blue"
host = n1
records = 100
[budget]
cpu = 0.01
memory = "128M"
[service]
rule = "checkout exe=/srv/shop/* namespace=shop"
rule = "search comm=node"
[privacy]
redact = ["paths", "args"]
hash_ids = true
hash_key = "0123456789abcdef"
)");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->trace.targets.comms, (std::vector<std::string>{"web-*", "api"}));
  EXPECT_EQ(config->trace.targets.exes, (std::vector<std::string>{"/srv/bin/*"}));
  EXPECT_EQ(config->trace.threshold_ns, 20'000'000u);
  EXPECT_EQ(config->windows.threshold_ns, 20'000'000u);
  EXPECT_EQ(config->trace.hook, HookMode::never);
  EXPECT_FALSE(config->trace.stacks);
  EXPECT_EQ(config->windows.window_ns, 30'000'000'000u);
  EXPECT_DOUBLE_EQ(config->windows.probability, 0.05);
  EXPECT_EQ(config->windows.seed, "blue");
  EXPECT_EQ(config->windows.host, "n1");
  EXPECT_EQ(config->windows.sample.records, 100u);
  EXPECT_DOUBLE_EQ(config->windows.budget.cpu, 0.01);
  EXPECT_EQ(config->windows.budget.memory_bytes, 128u << 20);
  ASSERT_EQ(config->services.size(), 2u);
  EXPECT_EQ(config->services[0].name, "checkout");
  EXPECT_EQ(config->services[0].conditions.size(), 2u);
  EXPECT_TRUE(config->trace.redact.paths && config->trace.redact.args && !config->trace.redact.addresses);
  EXPECT_TRUE(config->hash_ids);
}

TEST(AgentConfig, ErrorsNameTheLineAndTheMend) {
  EXPECT_EQ(error_of("[sampling]\nwindow = 30s\nwindows = 3\n"),
            ":3: there is no key 'sampling.windows'; there are window, probability, seed, host, records, "
            "per_fingerprint, drain");
  EXPECT_EQ(error_of("\n\n[sampling]\nwindow = fast\n").substr(0, 40),
            ":4: sampling.window: 'fast' is not a dur");
  EXPECT_NE(
      error_of("[samplin]\nwindow = 3s\n").find("there are the sections [targets], [trace], [sampling]"),
      std::string::npos);
  EXPECT_EQ(error_of("window\n"), ":1: 'window' is neither 'key = value' nor '[section]'");
  EXPECT_EQ(error_of("[sampling\n"), ":1: '[sampling' is no section; write [name]");
  EXPECT_EQ(error_of("[sampling]\nseed = \"a\n"), ":2: 'seed' has a quote that does not end");
  EXPECT_EQ(error_of("[targets]\ncomm = [\"a\",\n\"b\"]\n"),
            ":2: 'comm' has a list that does not end on its line");
  EXPECT_EQ(error_of("[sampling]\nseed = \"a#b\"\n"),
            ":2: 'seed' has a '#' in its value, which cannot be read");
  EXPECT_EQ(error_of("[sampling]\nseed = a\nseed = b\n"),
            ":3: 'sampling.seed' stands in line 2 already; leave one of them out");
  EXPECT_EQ(error_of("[trace]\nstacks = perhaps\n"), ":2: trace.stacks: 'perhaps' is neither true nor false");
  EXPECT_EQ(error_of("[sampling]\nprobability = 120%\n"),
            ": sampling.probability is above 1, that is above 100%");
  EXPECT_EQ(error_of("[budget]\ncpu = 0\n"), ":2: budget.cpu: '0' is no share above 0; write 0.5% or 0.005");
  EXPECT_EQ(error_of("[sampling]\nwindow =\n"), ":2: 'window' has no value; write \"\" for an empty one");
  EXPECT_NE(
      error_of("[service]\nrule = \"checkout\"\n").find(":2: service.rule: 'checkout' is no service rule"),
      std::string::npos);
  EXPECT_NE(error_of("[service]\nrule = \"checkout colour=red\"\n").find("'colour=red' is no condition"),
            std::string::npos);
  EXPECT_NE(error_of("[privacy]\nhash_host = true\nhash_key = short\n").find("privacy.hash_key is needed"),
            std::string::npos);
  const auto missing = load_agent_config("/nonexistent/agent.toml", {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message(),
            "read the configuration /nonexistent/agent.toml: No such file or directory");
}

TEST(AgentConfig, TheEnvironmentOverrulesTheFile) {
  const auto config = load("[sampling]\nwindow = 30s\n[service]\nrule = \"a comm=a\"\n",
                           {{"LOOPTRACE_SAMPLING_WINDOW", "10s"},
                            {"LOOPTRACE_TARGETS_COMM", "web, api"},
                            {"LOOPTRACE_SERVICE_RULE", "x comm=x; y comm=y"},
                            {"LOOPTRACE_METRICS_LISTEN", ""}});
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->windows.window_ns, 10'000'000'000u);
  EXPECT_EQ(config->trace.targets.comms, (std::vector<std::string>{"web", "api"}));
  ASSERT_EQ(config->services.size(), 2u);
  EXPECT_EQ(config->services[1].name, "y");
  EXPECT_FALSE(config->metrics_listen);
  EXPECT_EQ(error_of("", {{"LOOPTRACE_BUDGET_CPU", "much"}}),
            "the environment's LOOPTRACE_BUDGET_CPU: 'much' is no share above 0; write 0.5% or 0.005");
}

TEST(AgentConfig, KnowsWhatNeedsARestart) {
  const auto a = load("[sampling]\nwindow = 30s\n");
  const auto b = load("[sampling]\nwindow = 10s\n[budget]\ncpu = 1%\n");
  const auto c = load("[sampling]\nwindow = 30s\n[trace]\nthreshold = 20ms\n");
  ASSERT_TRUE(a && b && c);
  EXPECT_TRUE(only_sampling_differs(*a, *b));
  EXPECT_FALSE(only_sampling_differs(*a, *c));
  const auto d = load("[sampling]\nwindow = 30s\nhost = n1\n");
  ASSERT_TRUE(d);
  EXPECT_FALSE(only_sampling_differs(*a, *d)) << "the host's name stands in every record";
  const auto e = load("[sampling]\nwindow = 30s\n[budget]\nmemory = 64M\n");
  ASSERT_TRUE(e);
  EXPECT_FALSE(only_sampling_differs(*a, *e)) << "the room for unwind tables is set where the programs load";
  EXPECT_TRUE(same_keys(*a, *c, {"metrics.", "trace.interval"}));
  EXPECT_FALSE(same_keys(*a, *c, {"trace."}));
}

// The file that ships: it names every key, and what it says are the defaults.
TEST(AgentConfig, TheShippedFileNamesEveryKeyAndSaysTheDefaults) {
  const std::string path = std::string(TEST_DATA_DIR) + "/../../packaging/looptrace.conf";
  const auto text = read_file(path);
  ASSERT_TRUE(text) << text.error().message();
  std::string section;
  std::string all;  // with the keys that stand in comments
  std::vector<std::string> named;
  for (const std::string_view line : split(*text, '\n')) {
    std::string_view rest = trim(line);
    if (rest.starts_with('[')) section = rest.substr(1, rest.find(']') - 1);
    if (rest.starts_with('#')) rest = trim(rest.substr(1));
    const size_t equals = rest.find(" = ");
    if (equals != rest.npos && rest.substr(0, equals).find(' ') == rest.npos)
      named.push_back(section + "." + std::string(rest.substr(0, equals)));
  }
  for (const std::string& key : agent_config_keys())
    EXPECT_NE(std::find(named.begin(), named.end(), key), named.end()) << key << " is not documented";
  const auto config = load_agent_config(path, {});
  ASSERT_TRUE(config) << config.error().message();
  const auto defaults = load_agent_config("", {});
  EXPECT_EQ(config->trace.threshold_ns, defaults->trace.threshold_ns);
  EXPECT_EQ(config->trace.interval_ns, defaults->trace.interval_ns);
  EXPECT_EQ(config->trace.max_line, defaults->trace.max_line);
  EXPECT_EQ(config->windows.window_ns, defaults->windows.window_ns);
  EXPECT_EQ(config->windows.probability, defaults->windows.probability);
  EXPECT_EQ(config->windows.seed, defaults->windows.seed);
  EXPECT_EQ(config->windows.sample.records, defaults->windows.sample.records);
  EXPECT_EQ(config->windows.sample.per_fingerprint, defaults->windows.sample.per_fingerprint);
  EXPECT_EQ(config->windows.drain_ns, defaults->windows.drain_ns);
  EXPECT_EQ(config->windows.budget.cpu, defaults->windows.budget.cpu);
  EXPECT_EQ(config->windows.budget.memory_bytes, defaults->windows.budget.memory_bytes);
  EXPECT_EQ(config->metrics_listen->text(), defaults->metrics_listen->text());
}

}  // namespace
}  // namespace looptrace
