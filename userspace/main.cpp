// SPDX-License-Identifier: Apache-2.0
#include <malloc.h>

#include <cstdio>
#include <exception>

#include "agent/agent.h"
#include "cli/options.h"
#include "sinks/line_writer.h"
#include "sinks/schema.h"
#include "trace/commands.h"

using namespace looptrace;

namespace {

// The contract's exit codes (spec: 0 done, 1 failure, 2 usage, 3 no such target, 4 privilege or kernel).
int exit_code(const Error& error) {
  switch (error.fault) {
    case Fault::usage:
      return 2;
    case Fault::no_such_target:
      return 3;
    case Fault::unsupported:
      return 4;
    case Fault::failure:
      break;
  }
  return 1;
}

Result<void> print(const std::string& text) {
  LineWriter out = LineWriter::borrow(STDOUT_FILENO);
  return out.write(text);
}

Result<void> run(const Command& command) {
  switch (command.action) {
    case Action::trace:
      return run_trace(command.options, LOOPTRACE_VERSION);
    case Action::list:
      return run_list(command.options, LOOPTRACE_VERSION);
    case Action::check:
      return run_check(command.options, command.json);
    case Action::print:
      return print(command.text);
    case Action::agent:
      return command.check_config ? check_agent_config(command.config)
                                  : run_agent(command.config, LOOPTRACE_VERSION);
    case Action::schema: {
      auto text = schema_output(command.schema_record);
      return text ? print(*text) : text.error();
    }
  }
  return {};
}

// A process's symbols and unwind tables are built from large passing buffers. By default glibc keeps such
// memory after the first of a size was freed: 10 to 20 MB for each Node.js.
void give_large_buffers_back() {
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  mallopt(M_TRIM_THRESHOLD, 128 << 10);
}

}  // namespace

int main(int argc, char** argv) {
  give_large_buffers_back();
  try {
    auto command = parse_command_line(argc, argv, LOOPTRACE_VERSION);
    Result<void> done = command ? run(*command) : command.error();
    if (done) return 0;
    std::fprintf(stderr, "looptrace: %s\n", done.error().message().c_str());
    return exit_code(done.error());
  } catch (const std::exception& e) {  // a bug, or no memory
    std::fprintf(stderr, "looptrace: unexpected: %s\n", e.what());
    return 1;
  }
}
