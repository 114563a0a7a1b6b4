// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <elf.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace looptrace {

/// The headers of a 64-bit little-endian ELF file and bounded reads of its bytes. Nothing is mapped: a
/// file that its owner truncates while we look must end in a short read, not in SIGBUS.
class ElfFile {
 public:
  /// More than this is not read in one piece, whatever the headers say.
  static constexpr uint64_t kMaxPiece = 256u << 20;

  struct Section {
    std::string name;
    Elf64_Shdr header;
  };

  static Result<std::unique_ptr<ElfFile>> from_fd(UniqueFd fd, const std::string& name);
  static Result<std::unique_ptr<ElfFile>> from_memory(std::vector<uint8_t> image, const std::string& name);

  int fd() const { return fd_.get(); }  ///< -1 if the file is in memory
  const std::vector<uint8_t>& image() const { return image_; }
  uint64_t size() const { return size_; }
  const Elf64_Ehdr& header() const { return header_; }
  const std::vector<Elf64_Phdr>& segments() const { return segments_; }

  /// Empty where section headers are stripped or unreadable. Indexes are the file's own.
  const std::vector<Section>& sections() const { return sections_; }
  const Section* find_section(std::string_view name) const;
  const Section* find_section_of_type(uint32_t type) const;

  /// `size` bytes at file offset `offset`; false if any is missing.
  bool pread(uint64_t offset, void* into, size_t size) const;
  /// The same as a string; empty if any byte is missing or there are more than kMaxPiece.
  std::string load(uint64_t offset, uint64_t size) const;
  /// A section's bytes as they are in the file; empty for SHT_NOBITS.
  std::string load(const Section& section) const;
  /// `size` bytes at virtual address `address`, if the file holds them.
  bool read(uint64_t address, void* into, size_t size) const;
  /// Where in the file the byte at virtual address `address` is, if it is.
  std::optional<uint64_t> offset_of(uint64_t address) const;
  /// From `address` to the end of its segment in the file, at most `limit` bytes.
  std::string load_from_address(uint64_t address, uint64_t limit) const;

  /// Lower-case hex, empty if there is none.
  std::string read_build_id() const;

  /// The dynamic section's entries, up to DT_NULL.
  std::vector<Elf64_Dyn> read_dynamic() const;

  size_t bytes() const;

 private:
  ElfFile() = default;
  Result<void> parse(const std::string& name);

  UniqueFd fd_;
  std::vector<uint8_t> image_;
  uint64_t size_ = 0;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> segments_;
  std::vector<Section> sections_;
};

/// Bytes as digits, as build-ids are written.
std::string hex(std::string_view bytes);

}  // namespace looptrace
