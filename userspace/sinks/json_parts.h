// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "base/host.h"
#include "record/other_records.h"
#include "record/stall.h"
#include "sinks/fit.h"
#include "sinks/json_writer.h"

namespace looptrace {

// The parts that several records share, each as a field of the object that is open.

void write_host(JsonWriter& json, const HostInfo& host);
void write_process(JsonWriter& json, const ProcessInfo& process, bool with_command_line);
void write_thread(JsonWriter& json, uint32_t id, const std::string& name);
void write_container(JsonWriter& json, const ContainerInfo& container);
/// "service":{"name"}; nothing where it is not known.
void write_service(JsonWriter& json, const std::string& service);
void write_loop(JsonWriter& json, const LoopInfo& loop);
void write_peer(JsonWriter& json, const char* key, const std::optional<Peer>& peer);
/// "features":{name:{available,required,detail,mend}}, the last two only `with_texts`.
void write_features(JsonWriter& json, std::span<const Capability> features, bool with_texts);
/// "stacks": {"taken", "incomplete"}; nothing where none was taken.
void write_stack_counts(JsonWriter& json, const StackCounts& stacks);
void write_truncated(JsonWriter& json, const Truncated& truncated);

}  // namespace looptrace
