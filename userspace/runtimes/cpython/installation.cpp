// SPDX-License-Identifier: Apache-2.0
#include "runtimes/cpython/installation.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "runtimes/cpython/debug_offsets.h"
#include "runtimes/remote_memory.h"
#include "stacks/elf_object.h"

namespace looptrace::cpython {
namespace {

constexpr std::string_view kSupported = "3.8 to 3.15";

struct Place {
  const Module* module = nullptr;
  Symbol symbol;

  uint64_t address() const { return symbol.start + module->bias; }
};

std::optional<Place> find_in(const Module& module, std::string_view name) {
  if (!module.object) return std::nullopt;
  const auto symbol = module.object->find_by_name(name);
  if (!symbol || !symbol->start) return std::nullopt;
  return Place{&module, *symbol};
}

// The first mapping of each file, in the order of addresses.
std::vector<const Module*> distinct(const ProcessModules& modules) {
  std::vector<const Module*> files;
  std::set<const ElfObject*> seen;
  for (const Module& module : modules.all()) {
    if (module.object && seen.insert(module.object.get()).second) files.push_back(&module);
  }
  return files;
}

// A program that refers to the library's data has copies of it, and then everyone uses the copies.
std::optional<Place> find_data(const std::vector<const Module*>& files, const Module& python,
                               std::string_view name) {
  for (const Module* file : files) {
    if (file == &python || !file->object->is_main_program()) continue;
    if (auto copy = find_in(*file, name)) return copy;
  }
  return find_in(python, name);
}

// Py_GetVersion() (<= 3.10 has no Py_Version) returns a static buffer, filled since start-up: the one place
// its few instructions take the address of that begins like a version. lea disp32(%rip) in position-
// independent code, mov $imm32 elsewhere.
std::optional<Version> version_text(const RemoteMemory& memory, const Module& python) {
  const auto function = find_in(python, "Py_GetVersion");
  if (!function) return std::nullopt;
  std::vector<uint8_t> code(std::min<uint64_t>(function->symbol.size, 256));
  if (!python.object->read(function->symbol.start, code.data(), code.size())) return std::nullopt;
  for (size_t i = 0; i + 7 <= code.size(); ++i) {
    const bool lea = (code[i] == 0x48 || code[i] == 0x4c) && code[i + 1] == 0x8d && (code[i + 2] & 0xc7) == 5;
    const bool mov = (code[i] & 0xf8) == 0xb8;
    if (!lea && !mov) continue;
    int32_t operand = 0;
    std::memcpy(&operand, &code[i + (lea ? 3 : 1)], sizeof operand);
    const uint64_t address = lea ? function->address() + i + 7 + operand : static_cast<uint32_t>(operand);
    std::array<char, 16> text{};
    memory.read_some(address, text.data(), text.size());
    if (auto version = Version::from_text({text.data(), strnlen(text.data(), text.size())})) return version;
  }
  return std::nullopt;
}

std::optional<Version> version_of(const RemoteMemory& memory, const Module& python) {
  if (const auto place = find_in(python, "Py_Version")) {
    uint64_t hex = 0;
    if (python.object->read(place->symbol.start, &hex, sizeof hex)) return Version::from_hex(hex);
  }
  if (auto version = version_text(memory, python)) return version;
  return Version::from_file_name(python.object->name());
}

// Before 3.7 there is no _PyRuntime; the file's name and its eval loop give it away.
std::optional<Version> ancient(const std::vector<const Module*>& files) {
  for (const Module* file : files) {
    const auto version = Version::from_file_name(file->object->name());
    if (version && find_in(*file, "PyEval_EvalFrameEx")) return version;
  }
  return std::nullopt;
}

Error unsupported(const std::string& what) {
  return {what + ": Python frames of this process stay native (known are CPython " + std::string(kSupported) +
              ")",
          0, Fault::unsupported};
}

Result<Offsets> layout(const RemoteMemory& memory, const Version& version, uint64_t runtime) {
  if (version.major != 3 || version.minor < kOldestMinor || version.minor > kNewestMinor) {
    return unsupported("CPython " + version.text() + " is not known");
  }
  if (version.is_prerelease()) return unsupported("CPython " + version.text() + " is a pre-release");
  if (const auto offsets = offsets_of(version.minor)) return *offsets;

  std::vector<uint8_t> bytes(kDebugOffsetsBytes);
  bytes.resize(memory.read_some(runtime, bytes.data(), bytes.size()));
  auto offsets = decode_debug_offsets(bytes);
  if (!offsets) return unsupported("CPython " + version.text() + ": " + offsets.error().what);
  if (offsets->minor != version.minor)
    return unsupported("CPython " + version.text() + " contradicts itself");
  return offsets;
}

std::vector<AddressRange> moved(std::vector<AddressRange> ranges, uint64_t bias) {
  for (AddressRange& range : ranges) range = {range.start + bias, range.end + bias};
  return ranges;
}

Result<Installation> examine(const RemoteMemory& memory, const std::vector<const Module*>& files,
                             const Place& runtime) {
  const Module& python = *runtime.module;
  const auto version = version_of(memory, python);
  if (!version) return unsupported("A CPython without a version in " + python.object->name());
  const auto offsets = layout(memory, *version, runtime.address());
  if (!offsets) return offsets.error();

  Installation found;
  found.version = *version;
  found.offsets = *offsets;
  found.runtime = runtime.address();
  found.runtime_size = runtime.symbol.size;
  found.module = python.object->name();
  if (const auto type = find_data(files, python, "PyCode_Type")) found.code_type = type->address();
  for (const auto& [name, address] : {std::pair{"PyCell_Type", &found.cell_type},
                                      {"PyCFunction_Type", &found.function_type},
                                      {"PyMethod_Type", &found.method_type},
                                      {"PyUnicode_Type", &found.str_type},
                                      {"PyLong_Type", &found.int_type}}) {
    if (const auto type = find_data(files, python, name)) *address = type->address();
  }
  if (const auto cleanup = find_data(files, python, "_Py_InitCleanup"))
    found.init_cleanup = cleanup->address();
  if (const auto eval = find_in(python, "_PyEval_EvalFrameDefault")) {
    found.eval = moved(eval_ranges(*python.object, eval->symbol), python.bias);
  }
  if (const auto collect = find_in(python, "PyGC_Collect")) {
    found.collector = collector_ranges(*python.object, collect->symbol);
  }
  return found;
}

}  // namespace

Result<std::optional<Installation>> find_installation(pid_t pid, const ProcessModules& modules) {
  const RemoteMemory memory(pid);
  const auto files = distinct(modules);
  std::optional<Installation> idle;
  std::optional<Error> refused;
  for (const Module* file : files) {
    const auto runtime = find_in(*file, "_PyRuntime");
    if (!runtime) continue;
    auto found = examine(memory, files, *runtime);
    if (!found) {
      refused = found.error();
      continue;
    }
    // Of two (a program that embeds one and loads another) the one that runs counts.
    const uint64_t interpreters = found->runtime + found->offsets.runtime.interpreters_head;
    if (memory.pointer(interpreters)) return std::optional<Installation>(std::move(*found));
    if (!idle) idle = std::move(*found);
  }
  if (idle) return idle;
  if (refused) return *refused;
  if (const auto version = ancient(files)) return unsupported("CPython " + version->text() + " is not known");
  return std::optional<Installation>();
}

std::optional<AsyncioOffsets> find_asyncio(const ProcessModules& modules) {
  for (const Module* file : distinct(modules)) {
    if (auto offsets = decode_asyncio_offsets(file->object->section(".AsyncioDebug"))) return offsets;
  }
  return std::nullopt;
}

}  // namespace looptrace::cpython
