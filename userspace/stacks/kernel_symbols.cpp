// SPDX-License-Identifier: Apache-2.0
#include "stacks/kernel_symbols.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <map>

#include "base/fd.h"

namespace looptrace {
namespace {

// No kernel function is this long: an address further from a symbol is in code loaded since.
constexpr uint64_t kMaxOffset = 256u << 10;
constexpr size_t kMaxSymbols = 4u << 20;

struct Parsed {
  uint64_t address;
  uint32_t name;
  uint32_t module;
  uint8_t rank;  // lower is better where addresses are equal
};

bool is_marker(std::string_view name) { return name == "_text" || name == "_stext" || name == "startup_64"; }

}  // namespace

KernelSymbols KernelSymbols::load(const std::string& path) {
  KernelSymbols table;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return table;

  std::vector<Parsed> parsed;
  std::map<std::string, uint32_t, std::less<>> module_ids;
  table.modules_.emplace_back();
  bool any = false, any_address = false;
  const auto add_line = [&](std::string_view line) {  // "ffffffff81000000 T name\t[module]"
    uint64_t address = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), address, 16);
    line.remove_prefix(static_cast<size_t>(end - line.data()));
    if (error != std::errc() || line.size() < 4 || parsed.size() >= kMaxSymbols) return;
    const char type = line[1];
    line.remove_prefix(3);
    if (type != 't' && type != 'T' && type != 'w' && type != 'W') return;
    any = true;
    if (address == 0) return;
    any_address = true;
    const size_t tab = line.find('\t');
    const std::string_view name = line.substr(0, tab);
    if (name.empty() || name.starts_with("__pfx_")) return;  // padding before a function
    uint32_t module = 0;
    if (tab != std::string_view::npos && line.size() > tab + 3) {
      const std::string_view in = line.substr(tab + 2, line.size() - tab - 3);
      auto it = module_ids.find(in);
      if (it == module_ids.end()) {
        it = module_ids.emplace(in, static_cast<uint32_t>(table.modules_.size())).first;
        table.modules_.emplace_back(in);
      }
      module = it->second;
    }
    const auto rank = static_cast<uint8_t>((type == 'T' ? 0 : 1) + (is_marker(name) ? 2 : 0));
    parsed.push_back({address, static_cast<uint32_t>(table.names_.size()), module, rank});
    table.names_.append(name);
    table.names_.push_back('\0');
  };

  std::vector<char> buffer(64u << 10);
  size_t filled = 0;
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer.data() + filled, buffer.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    filled += static_cast<size_t>(n);
    std::string_view rest(buffer.data(), filled);
    for (size_t newline; (newline = rest.find('\n')) != std::string_view::npos;
         rest.remove_prefix(newline + 1))
      add_line(rest.substr(0, newline));
    if (rest.size() == buffer.size()) rest = {};  // no such line in a sound file
    filled = rest.size();
    std::copy(rest.begin(), rest.end(), buffer.begin());
  }
  table.hidden_ = any && !any_address;

  std::stable_sort(parsed.begin(), parsed.end(), [](const Parsed& a, const Parsed& b) {
    return a.address != b.address ? a.address < b.address : a.rank < b.rank;
  });
  if (parsed.empty()) return table;
  table.base_ = parsed.front().address;
  size_t distinct = 1;
  for (size_t i = 1; i < parsed.size(); ++i) distinct += parsed[i].address != parsed[i - 1].address;
  table.entries_.reserve(distinct);
  for (size_t i = 0; i < parsed.size(); ++i) {
    const Parsed& symbol = parsed[i];
    if (i && symbol.address == parsed[i - 1].address) continue;
    const uint64_t from_base = symbol.address - table.base_;
    if (from_base > std::numeric_limits<uint32_t>::max()) break;
    if (table.runs_.empty() || table.runs_.back().module != symbol.module)
      table.runs_.push_back({static_cast<uint32_t>(table.entries_.size()), symbol.module});
    table.entries_.push_back({static_cast<uint32_t>(from_base), symbol.name});
  }
  table.names_.shrink_to_fit();
  return table;
}

std::optional<KernelSymbols::Found> KernelSymbols::find(uint64_t address) const {
  if (address < base_ || address - base_ > std::numeric_limits<uint32_t>::max()) return std::nullopt;
  const auto from_base = static_cast<uint32_t>(address - base_);
  const auto after = std::upper_bound(entries_.begin(), entries_.end(), from_base,
                                      [](uint32_t at, const Entry& entry) { return at < entry.start; });
  if (after == entries_.begin()) return std::nullopt;
  const Entry& entry = *(after - 1);
  const auto index = static_cast<uint32_t>(after - 1 - entries_.begin());
  Found found{names_.c_str() + entry.name, {}, from_base - entry.start};
  if (found.offset > kMaxOffset || found.name == "_etext" || found.name == "_einittext") return std::nullopt;
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), index,
                                    [](uint32_t at, const ModuleRun& r) { return at < r.first; });
  if (run != runs_.begin()) found.module = modules_[(run - 1)->module];
  return found;
}

size_t KernelSymbols::bytes() const {
  size_t sum = sizeof *this + entries_.capacity() * sizeof(Entry) + runs_.capacity() * sizeof(ModuleRun) +
               names_.capacity() + modules_.capacity() * sizeof(std::string);
  for (const std::string& module : modules_) sum += module.capacity() > 15 ? module.capacity() : 0;
  return sum;
}

}  // namespace looptrace
