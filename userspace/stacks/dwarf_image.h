// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <libelf.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/free_with.h"
#include "stacks/packed_section.h"

namespace looptrace {

class ElfFile;

/// What libdw needs of a file for lines and inlined functions, as an ELF file in memory whose bytes are read
/// when they are needed. Given the file itself, libdw unpacks all that is compressed before its first answer:
/// of libc 60 ms and 14 MB. Who asks libdw for something calls need() for the bytes that it will look at;
/// others are zero.
class DwarfImage {
 public:
  /// Large, and needed in parts; of the others (strings and the like) all is needed.
  enum Part : unsigned { kInfo, kLine, kParts };

  /// `file` must outlive it. Null if it has no lines and units, or more than we are ready to look at.
  static std::unique_ptr<DwarfImage> of(const ElfFile& file);
  ~DwarfImage();
  DwarfImage(const DwarfImage&) = delete;
  DwarfImage& operator=(const DwarfImage&) = delete;

  /// As a file for libdw, which keeps pointers into it.
  Elf* elf() const { return elf_.get(); }

  /// Reads another piece of the sections that are no parts. True when they are there.
  bool read_on();
  /// A read has failed: the file is broken, or was truncated under our hands.
  bool failed() const { return failed_; }

  uint64_t size(Part part) const;  ///< 0 where libdw unpacks it by itself: it is all there
  /// Whether it is compressed: then what lies before a place has to be unpacked once.
  bool is_packed(Part part) const;
  /// Has these bytes be there, as far as the section goes. False if they cannot be read.
  bool need(Part part, uint64_t offset, uint64_t size);
  /// Whether they are.
  bool has(Part part, uint64_t offset, uint64_t size) const;
  /// A section, zeros where it is not there yet; also one that libdw has unpacked. Empty if there is none.
  std::string_view section(std::string_view name) const;

  /// Forgets the bytes of a part. What libdw has made of them stays.
  void drop(Part part);
  size_t filled() const { return filled_pages_ * kPage; }  ///< bytes of parts that are there
  uint64_t read_bytes() const { return read_bytes_; }      ///< so far, of all
  size_t bytes() const;

  static constexpr uint64_t kPiece = 64u << 10;  ///< unpacked in a third of a millisecond

 private:
  static constexpr size_t kPage = 4096;
  struct Section {
    std::string name;
    bool foreign = false;
    uint64_t at = 0, size = 0;  // in the image
    uint64_t file_at = 0;       // where it is not compressed
    std::unique_ptr<PackedSection> packed;
    std::vector<bool> there;  // its pages, where it is a part
    uint64_t read = 0;        // where it is not
  };
  explicit DwarfImage(const ElfFile& file) : file_(file) {}
  bool lay_out();
  bool fill(Section& section, uint64_t from, uint64_t to);

  const ElfFile& file_;
  uint8_t* base_ = nullptr;
  uint64_t mapped_ = 0, whole_bytes_ = 0;
  std::vector<Section> sections_;
  std::array<Section*, kParts> parts_{};
  size_t filled_pages_ = 0;
  uint64_t read_bytes_ = 0;
  bool failed_ = false;
  std::unique_ptr<Elf, FreeWith<elf_end>> elf_;
};

}  // namespace looptrace
