// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "cli/options.h"
#include "cli/units.h"

namespace looptrace {
namespace {

Result<Command> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "looptrace");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data(), "9.8.7");
}

Options options_of(std::vector<const char*> arguments) {
  const auto command = parse(std::move(arguments));
  EXPECT_TRUE(command) << command.error().message();
  return command ? command->options : Options();
}

std::string error_of(std::vector<const char*> arguments) {
  const auto command = parse(std::move(arguments));
  if (command) return "no error";
  EXPECT_EQ(command.error().fault, Fault::usage);
  return command.error().message();
}

TEST(Units, Durations) {
  const std::pair<const char*, uint64_t> rows[] = {{"50ms", 50'000'000},
                                                   {"1s", 1'000'000'000},
                                                   {"200us", 200'000},
                                                   {"200\u00b5s", 200'000},
                                                   {"7ns", 7},
                                                   {"10", 10'000'000},
                                                   {"1.5s", 1'500'000'000},
                                                   {"0.1ms", 100'000},
                                                   {"2min", 120'000'000'000},
                                                   {"1h", 3'600'000'000'000},
                                                   {"10 ms", 10'000'000},
                                                   {"0", 0},
                                                   {"1.5", 1'500'000},
                                                   {"0.000000001s", 1},
                                                   {"1.9ns", 1},
                                                   {"18446744073709551615ns", UINT64_MAX},
                                                   {"0.3333333333333333333333s", 333'333'333}};
  for (const auto& [text, ns] : rows) {
    const auto parsed = parse_duration(text);
    ASSERT_TRUE(parsed) << text << ": " << parsed.error().message();
    EXPECT_EQ(*parsed, ns) << text;
  }
  EXPECT_EQ(*parse_duration("30", "s"), 30'000'000'000u);
}

TEST(Units, NotDurations) {
  for (const char* text : {"", "ms", "-5ms", "5 m s", "5sec", "5e3", "1.", ".5s", "0x10", "5m", "50MS", "inf",
                           "18446744073709551616", "18446744073709551616ns", "99999999999999h", " 5ms"}) {
    const auto parsed = parse_duration(text);
    EXPECT_FALSE(parsed) << text;
    if (!parsed) {
      EXPECT_EQ(parsed.error().fault, Fault::usage);
      EXPECT_TRUE(parsed.error().what.starts_with("'" + std::string(text) + "'")) << parsed.error().what;
    }
  }
}

TEST(Units, Sizes) {
  const std::pair<const char*, uint64_t> rows[] = {
      {"8000", 8000},       {"64k", 65536}, {"64K", 65536},    {"1M", 1u << 20},
      {"16MiB", 16u << 20}, {"1.5k", 1536}, {"1GB", 1u << 30}, {"5b", 5}};
  for (const auto& [text, bytes] : rows) EXPECT_EQ(*parse_size(text), bytes) << text;
  for (const char* text : {"", "k", "5T", "-1", "99999999999999G"}) EXPECT_FALSE(parse_size(text)) << text;
}

TEST(Units, Numbers) {
  EXPECT_EQ(*parse_number("7", 1, 9), 7u);
  for (const char* text : {"", "0", "10", "7x", "+7", " 7", "7.0", "99999999999999999999"}) {
    EXPECT_FALSE(parse_number(text, 1, 9)) << text;
  }
}

TEST(Parse, DefaultsAreTheContracts) {
  const auto command = parse({});
  ASSERT_TRUE(command);
  EXPECT_EQ(command->action, Action::trace);
  const Options& o = command->options;
  EXPECT_TRUE(o.targets.empty());
  EXPECT_EQ(o.threshold_ns, 50'000'000u);
  EXPECT_FALSE(o.duration_ns);
  EXPECT_FALSE(o.max_events);
  EXPECT_EQ(o.interval_ns, 10'000'000'000u);
  EXPECT_EQ(o.output, "");
  EXPECT_EQ(o.format, Format::automatic);
  EXPECT_EQ(o.max_line, 8000u);
  EXPECT_EQ(o.hook, HookMode::automatic);
  EXPECT_TRUE(o.stacks);
  EXPECT_TRUE(o.source_lines);
  EXPECT_FALSE(o.debuginfod);
  EXPECT_FALSE(o.redact.any());
  EXPECT_FALSE(o.sample_hz);
  EXPECT_FALSE(o.verbose || o.quiet);
}

TEST(Parse, Targets) {
  const Options o = options_of({"-p", "1", "--pid", "2", "--pid=3", "-t", "4", "-c", "web-*", "--comm", "db",
                                "--exe", "/usr/bin/*", "--cgroup", "/a.slice", "--container", "3F4E9c"});
  EXPECT_EQ(o.targets.pids, (std::vector<uint32_t>{1, 2, 3}));
  EXPECT_EQ(o.targets.tids, (std::vector<uint32_t>{4}));
  EXPECT_EQ(o.targets.comms, (std::vector<std::string>{"web-*", "db"}));
  EXPECT_EQ(o.targets.exes, (std::vector<std::string>{"/usr/bin/*"}));
  EXPECT_EQ(o.targets.cgroups, (std::vector<std::string>{"/a.slice"}));
  EXPECT_EQ(o.targets.containers, (std::vector<std::string>{"3f4e9c"}));
  EXPECT_EQ(o.targets.describe().front(), "pid=1");
  EXPECT_EQ(o.targets.describe().back(), "container=3f4e9c");
  EXPECT_EQ(options_of({"--container", "containerd://ABCD1234"}).targets.containers.front(), "abcd1234");
  EXPECT_TRUE(options_of({"--all"}).targets.all);
}

TEST(Parse, EveryTraceOption) {
  const Options o = options_of({"trace",
                                "-m",
                                "20",
                                "-d",
                                "30",
                                "-n",
                                "5",
                                "-i",
                                "2s",
                                "-o",
                                "/tmp/x",
                                "-f",
                                "json",
                                "--max-line",
                                "16k",
                                "--hook",
                                "never",
                                "--redact",
                                "paths,args",
                                "--redact",
                                "addresses",
                                "-v",
                                "--sample-hz",
                                "199",
                                "--max-loops",
                                "64",
                                "--ring-bytes",
                                "8M",
                                "--metrics",
                                "[::1]:9464",
                                "--textfile",
                                "/tmp/x.prom",
                                "--otlp",
                                "https://otel.example.com",
                                "--no-source-lines",
                                "--debuginfod"});
  EXPECT_EQ(o.threshold_ns, 20'000'000u);
  EXPECT_EQ(*o.duration_ns, 30'000'000'000u);
  EXPECT_EQ(*o.max_events, 5u);
  EXPECT_EQ(o.interval_ns, 2'000'000'000u);
  EXPECT_EQ(o.output, "/tmp/x");
  EXPECT_EQ(o.format, Format::json);
  EXPECT_EQ(o.max_line, 16384u);
  EXPECT_EQ(o.hook, HookMode::never);
  EXPECT_TRUE(o.redact.paths && o.redact.args && o.redact.addresses);
  EXPECT_TRUE(o.verbose);
  EXPECT_EQ(*o.sample_hz, 199u);
  EXPECT_EQ(*o.max_loops, 64u);
  EXPECT_EQ(*o.ring_bytes, 8u << 20);
  EXPECT_FALSE(o.source_lines);
  EXPECT_TRUE(o.debuginfod);
  EXPECT_EQ(o.metrics->text(), "[::1]:9464");
  EXPECT_EQ(o.textfile, "/tmp/x.prom");
  EXPECT_EQ(o.otlp->text, "https://otel.example.com");
  EXPECT_EQ(options_of({"-o", "-"}).output, "") << "standard output";
  EXPECT_FALSE(options_of({"--no-stacks"}).stacks);
  EXPECT_TRUE(options_of({"-q"}).quiet);
  EXPECT_EQ(options_of({"-f", "folded"}).format, Format::folded);
  EXPECT_EQ(*options_of({"--sample-hz", "0"}).sample_hz, 0u);
  EXPECT_EQ(options_of({"-m", "1s", "-m", "2s"}).threshold_ns, 2'000'000'000u) << "the last one wins";
  EXPECT_EQ(options_of({"-m100us"}).threshold_ns, 100'000u);
}

TEST(Parse, OtherCommands) {
  auto command = parse({"list", "-c", "web", "-f", "json"});
  ASSERT_TRUE(command);
  EXPECT_EQ(command->action, Action::list);
  EXPECT_EQ(command->options.targets.comms.front(), "web");
  EXPECT_EQ(command->options.format, Format::json);
  command = parse({"check"});
  ASSERT_TRUE(command);
  EXPECT_EQ(command->action, Action::check);
  EXPECT_FALSE(command->json);
  EXPECT_TRUE(parse({"check", "--json", "-p", "5"})->json);
  command = parse({"schema", "stall"});
  ASSERT_TRUE(command);
  EXPECT_EQ(command->action, Action::schema);
  EXPECT_EQ(command->schema_record, "stall");
  EXPECT_EQ(parse({"schema"})->schema_record, "");
}

TEST(Parse, HelpAndVersionAreTextForStandardOutput) {
  for (const std::vector<const char*>& arguments :
       std::vector<std::vector<const char*>>{{"--help"}, {"-h"}, {"trace", "--help"}}) {
    const auto help = parse(arguments);
    ASSERT_TRUE(help);
    EXPECT_EQ(help->action, Action::print);
    for (const char* name : {"--pid", "--comm", "--threshold", "--metrics", "--textfile", "--redact",
                             "--ring-bytes", "list", "check", "schema", "agent"}) {
      EXPECT_NE(help->text.find(name), std::string::npos) << name;
    }
    for (const char* later : {"explain"}) {
      EXPECT_EQ(help->text.find(later), std::string::npos) << later;
    }
  }
  EXPECT_EQ(parse({"agent", "--config", "x.conf"})->config, "x.conf");
  EXPECT_TRUE(parse({"agent", "--check-config"})->check_config);
  EXPECT_EQ(parse({"--version"})->text, "looptrace 9.8.7\n");
  EXPECT_EQ(parse({"list", "--version"})->text, "looptrace 9.8.7\n");
  EXPECT_NE(parse({"check", "--help"})->text.find("--json"), std::string::npos);
  EXPECT_EQ(parse({"check", "--help"})->text.find("--threshold"), std::string::npos);
  EXPECT_EQ(parse({"-p", "x", "--help"})->action, Action::print) << "help before complaints";
}

struct Wrong {
  std::vector<const char*> arguments;
  std::vector<const char*> says;  // what was given, why it is wrong, what is right
};

TEST(Parse, WrongInput) {
  const Wrong rows[] = {
      {{"-m", "0"}, {"--threshold", "'0'", "too short", "1ms"}},
      {{"-m", "50us"}, {"--threshold", "'50us'", "too short"}},
      {{"-m", "fast"}, {"--threshold", "'fast'", "not a duration", "50ms"}},
      {{"-m", "5m"}, {"--threshold", "'5m'", "unknown unit", "50ms"}},
      {{"-m", ""}, {"--threshold", "''"}},
      {{"-d", "0"}, {"--duration", "'0'", "30s"}},
      {{"-i", "1ms"}, {"--interval", "'1ms'", "100ms"}},
      {{"-n", "0"}, {"--max-events", "'0'", "100"}},
      {{"-n", "1.5"}, {"--max-events", "'1.5'"}},
      {{"-p", "nginx"}, {"--pid", "'nginx'", "4711", "--comm"}},
      {{"-p", "0"}, {"--pid", "'0'"}},
      {{"-p", "99999999999"}, {"--pid", "'99999999999'"}},
      {{"-t", "-5"}, {"-5"}},
      {{"-c", ""}, {"--comm", "empty", "web-*"}},
      {{"--cgroup", "nginx.service"}, {"--cgroup", "'nginx.service'", "begins with '/'"}},
      {{"--container", "abc"}, {"--container", "'abc'", "4 to 64"}},
      {{"--container", "my-web"}, {"--container", "'my-web'", "hexadecimal"}},
      {{"-f", "xml"}, {"--format", "'xml'", "json, pretty and folded"}},
      {{"--hook", "on"}, {"--hook", "'on'", "auto, always and never"}},
      {{"--metrics", "example.com:80"}, {"--metrics", "'example.com:80'", "127.0.0.1:9464"}},
      {{"--metrics", ":9464"}, {"--metrics", "':9464'", "0.0.0.0:9464"}},
      {{"--otlp", "collector:4318"}, {"--otlp", "'collector:4318'", "http://127.0.0.1:4318"}},
      {{"--textfile", "/tmp/looptrace.txt"}, {"--textfile", "'/tmp/looptrace.txt'", ".prom"}},
      {{"--redact", "paths,names"}, {"--redact", "'names'", "paths, args and addresses"}},
      {{"--redact", ""}, {"--redact", "''"}},
      {{"--max-line", "512"}, {"--max-line", "'512'", "1024"}},
      {{"--ring-bytes", "3M"}, {"--ring-bytes", "'3M'", "power of two", "8M"}},
      {{"--sample-hz", "5000"}, {"--sample-hz", "'5000'", "1000"}},
      {{"--max-loops", "0"}, {"--max-loops", "'0'"}},
      {{"-q", "-v"}, {"-q", "-v", "contradict"}},
      {{"--all", "-p", "5"}, {"--all", "--pid=5"}},
      {{"-f", "folded", "--no-stacks"}, {"folded", "--no-stacks"}},
      {{"--no-stacks", "--sample-hz", "99"}, {"--sample-hz", "--no-stacks"}},
      {{"list", "-f", "folded"}, {"--format", "'folded'", "list"}},
      {{"list", "--metrics", "9464"}, {"--metrics", "no option", "looptrace list --help"}},
      {{"--textfile", "x"}, {"--textfile", "'x'", ".prom"}},
      {{"list", "-m", "5"}, {"-m", "looptrace list --help"}},
      {{"-p"}, {"--pid", "needs a value"}},
      {{"-o"}, {"--output", "needs a value"}},
      {{"-p", "5", "list"}, {"'list'", "must come first"}},
      {{"-p", "5", "7"}, {"'7'", "-p PID"}},
      {{"top"}, {"'top'", "not available in this version"}},
      {{"report", "x.jsonl"}, {"'report'", "not available in this version"}},
      {{"explain"}, {"'explain'", "not available in this version"}},
      {{"run", "--", "ls"}, {"'run'", "not available in this version"}},
      {{"agent", "x.conf"}, {"'x.conf'"}},
      {{"agent", "--config"}, {"--config", "needs a value"}},
      {{"agent", "-p", "1"}, {"-p"}},
      {{"nginx"}, {"'nginx'", "-c NAME"}},
      {{"schema", "stall", "loop"}, {"'loop'"}},
  };
  for (const Wrong& row : rows) {
    const std::string message = error_of(row.arguments);
    for (const char* part : row.says)
      EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
    EXPECT_FALSE(message.starts_with("looptrace")) << "main says that";
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

struct WrongValues {
  const char* option;
  const char* values[3];
};

TEST(Parse, WrongValuesOfEveryOption) {
  const WrongValues rows[] = {
      {"--pid", {"server", "-1", "4294967296"}},
      {"--tid", {"0", "1.5", "99999999999"}},
      {"--comm", {"", " ", "\t"}},
      {"--exe", {"", " ", "\t"}},
      {"--cgroup", {"", "nginx.service", "../x"}},
      {"--container", {"", "3f4", "web-1"}},
      {"--threshold", {"soon", "-5", "10days"}},
      {"--duration", {"0", "-1", "1e3"}},
      {"--interval", {"0", "often", "1us"}},
      {"--max-events", {"0", "-1", "ten"}},
      {"--output", {"", " ", "\t"}},
      {"--format", {"", "xml", "JSON"}},
      {"--max-line", {"10", "x", "99999999999"}},
      {"--hook", {"", "on", "ALWAYS"}},
      {"--redact", {"", "names", "paths;args"}},
      {"--sample-hz", {"-1", "1001", "x"}},
      {"--max-loops", {"0", "x", "1000001"}},
      {"--ring-bytes", {"3", "3M", "99G"}},
  };
  for (const WrongValues& row : rows) {
    for (const char* value : row.values) {
      const std::string message = error_of({row.option, value});
      EXPECT_TRUE(message.starts_with(row.option)) << row.option << " '" << value << "': " << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
}

}  // namespace
}  // namespace looptrace
