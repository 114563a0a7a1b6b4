// SPDX-License-Identifier: Apache-2.0
#include "stacks/separate_debug.h"

#include <lzma.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "stacks/byte_reader.h"
#include "stacks/debuginfod.h"
#include "stacks/elf_file.h"
#include "stacks/rooted_open.h"

namespace looptrace {
namespace {

// A checksum over more than this would hold up the trace for seconds.
constexpr uint64_t kMaxChecksummed = 1u << 30;
constexpr uint64_t kMaxUnpacked = 64u << 20;
constexpr uint64_t kUnpackMemory = 128u << 20;

struct DebugLink {
  std::string name;
  uint32_t crc = 0;
};

DebugLink read_debuglink(const ElfFile& file) {
  const ElfFile::Section* section = file.find_section(".gnu_debuglink");
  if (!section || section->header.sh_size > 4096) return {};
  const std::string bytes = file.load(*section);
  ByteReader in(bytes);
  DebugLink link;
  link.name = in.c_string();
  in.bytes((4 - in.offset() % 4) % 4);
  link.crc = in.get<uint32_t>();
  // A name with a directory in it would have us open files of the tracee's choosing.
  if (in.failed() || link.name.find('/') != std::string::npos) return {};
  return link;
}

std::optional<uint32_t> checksum(const ElfFile& file) {
  if (file.size() > kMaxChecksummed) return std::nullopt;
  std::array<uint8_t, 65536> chunk;
  uint32_t crc = 0;
  for (uint64_t at = 0; at < file.size(); at += chunk.size()) {
    const auto n = static_cast<size_t>(std::min<uint64_t>(chunk.size(), file.size() - at));
    if (!file.pread(at, chunk.data(), n)) return std::nullopt;
    crc = lzma_crc32(chunk.data(), n, crc);  // the same polynomial as .gnu_debuglink's
  }
  return crc;
}

std::unique_ptr<ElfFile> try_open(const std::string& root, const std::string& path) {
  UniqueFd fd = open_in_root(root, path);
  if (!fd) return nullptr;
  auto file = ElfFile::from_fd(std::move(fd), path);
  return file ? std::move(*file) : nullptr;
}

std::unique_ptr<ElfFile> find_by_link(const DebugLink& link, const std::string& build_id,
                                      const std::string& path, const std::string& root) {
  const size_t slash = path.rfind('/');
  if (link.name.empty() || path.empty() || path[0] != '/' || slash == std::string::npos) return nullptr;
  const std::string directory = path.substr(0, slash + 1);
  for (const std::string& candidate :
       {directory + link.name, directory + ".debug/" + link.name, "/usr/lib/debug" + directory + link.name}) {
    if (candidate == path) continue;
    auto file = try_open(root, candidate);
    if (!file) continue;
    const std::string its_id = file->read_build_id();
    const bool same =
        build_id.empty() || its_id.empty() ? checksum(*file) == std::optional(link.crc) : its_id == build_id;
    if (same) return file;
  }
  return nullptr;
}

std::unique_ptr<ElfFile> find_by_build_id(const std::string& build_id, const std::string& root) {
  if (build_id.size() <= 2) return nullptr;
  auto found = try_open(
      root, "/usr/lib/debug/.build-id/" + build_id.substr(0, 2) + "/" + build_id.substr(2) + ".debug");
  return found && found->read_build_id() == build_id ? std::move(found) : nullptr;
}

}  // namespace

std::unique_ptr<ElfFile> find_separate_debug(const ElfFile& file, const std::string& build_id,
                                             const std::string& path, const std::string& root,
                                             Debuginfod* servers) {
  const DebugLink link = read_debuglink(file);
  for (const std::string& where : {std::string(), root}) {
    if (auto found = find_by_build_id(build_id, where)) return found;
    if (auto found = find_by_link(link, build_id, path, where)) return found;
    if (root.empty()) break;
  }
  if (servers) {
    if (UniqueFd fd = servers->find(build_id)) {
      auto found = ElfFile::from_fd(std::move(fd), build_id + ".debug");
      if (found && (*found)->read_build_id() == build_id) return std::move(*found);
    }
  }
  return nullptr;
}

bool has_supplementary(const ElfFile& file) { return file.find_section(".gnu_debugaltlink") != nullptr; }

std::unique_ptr<ElfFile> find_supplementary(const ElfFile& file, const std::string& root) {
  const ElfFile::Section* section = file.find_section(".gnu_debugaltlink");
  if (!section || section->header.sh_size > 4096) return nullptr;
  const std::string bytes = file.load(*section);
  ByteReader in(bytes);
  const std::string path(in.c_string());
  const std::string build_id = hex(in.bytes(in.left()));
  if (in.failed() || build_id.empty()) return nullptr;
  for (const std::string& where : {std::string(), root}) {
    if (auto found = find_by_build_id(build_id, where)) return found;
    auto found = path.starts_with('/') ? try_open(where, path) : nullptr;
    if (found && found->read_build_id() == build_id) return found;
    if (root.empty()) break;
  }
  return nullptr;
}

std::unique_ptr<ElfFile> unpack_debugdata(const ElfFile& file) {
  const ElfFile::Section* section = file.find_section(".gnu_debugdata");
  if (!section || section->header.sh_size > kMaxUnpacked) return nullptr;
  const std::string packed = file.load(*section);
  if (packed.empty()) return nullptr;

  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, kUnpackMemory, 0) != LZMA_OK) return nullptr;
  std::vector<uint8_t> image;
  stream.next_in = reinterpret_cast<const uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  lzma_ret state = LZMA_OK;
  while (state == LZMA_OK && image.size() < kMaxUnpacked) {
    const size_t filled = image.size();
    image.resize(filled + (256u << 10));
    stream.next_out = image.data() + filled;
    stream.avail_out = image.size() - filled;
    state = lzma_code(&stream, LZMA_FINISH);
    image.resize(image.size() - stream.avail_out);
  }
  lzma_end(&stream);
  if (state != LZMA_STREAM_END) return nullptr;
  image.shrink_to_fit();
  auto elf = ElfFile::from_memory(std::move(image), ".gnu_debugdata");
  return elf ? std::move(*elf) : nullptr;
}

}  // namespace looptrace
