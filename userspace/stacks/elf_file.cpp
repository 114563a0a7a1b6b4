// SPDX-License-Identifier: Apache-2.0
#include "stacks/elf_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "stacks/byte_reader.h"

namespace looptrace {
namespace {

constexpr size_t kMaxSegments = 512;
constexpr size_t kMaxSections = 1u << 16;
constexpr uint64_t kMaxSectionNames = 16u << 20;
constexpr uint64_t kMaxNotes = 64u << 10;
constexpr size_t kMaxBuildId = 64;

// The GNU build-id among `notes`, which are padded to `align` (4, or 8 in .note.gnu.property's segment).
std::string build_id_in(std::string_view notes, uint64_t align) {
  align = align == 8 ? 8 : 4;
  ByteReader reader(notes);
  const auto skip_padding = [&] {
    const uint64_t pad = (align - reader.offset() % align) % align;
    reader.bytes(std::min<uint64_t>(pad, reader.left()));
  };
  while (!reader.done()) {
    const auto name_size = reader.get<uint32_t>();
    const auto desc_size = reader.get<uint32_t>();
    const auto type = reader.get<uint32_t>();
    const std::string_view name = reader.bytes(name_size);
    skip_padding();
    const std::string_view desc = reader.bytes(desc_size);
    skip_padding();
    if (reader.failed()) break;
    if (type == NT_GNU_BUILD_ID && name == std::string_view("GNU\0", 4) && !desc.empty() &&
        desc.size() <= kMaxBuildId)
      return hex(desc);
  }
  return {};
}

}  // namespace

std::string hex(std::string_view bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    text += digits[static_cast<uint8_t>(c) >> 4];
    text += digits[c & 15];
  }
  return text;
}

Result<std::unique_ptr<ElfFile>> ElfFile::from_fd(UniqueFd fd, const std::string& name) {
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return Error{"stat " + name, errno};
  if (!S_ISREG(st.st_mode)) return Error{name + " is not a regular file"};
  std::unique_ptr<ElfFile> file(new ElfFile);
  file->fd_ = std::move(fd);
  file->size_ = static_cast<uint64_t>(st.st_size);
  if (auto parsed = file->parse(name); !parsed) return parsed.error();
  return file;
}

Result<std::unique_ptr<ElfFile>> ElfFile::from_memory(std::vector<uint8_t> image, const std::string& name) {
  std::unique_ptr<ElfFile> file(new ElfFile);
  file->size_ = image.size();
  file->image_ = std::move(image);
  if (auto parsed = file->parse(name); !parsed) return parsed.error();
  return file;
}

Result<void> ElfFile::parse(const std::string& name) {
  if (!pread(0, &header_, sizeof header_) || std::memcmp(header_.e_ident, ELFMAG, SELFMAG) != 0)
    return Error{name + " is not an ELF file"};
  if (header_.e_ident[EI_CLASS] != ELFCLASS64 || header_.e_ident[EI_DATA] != ELFDATA2LSB)
    return Error{name + " is not a 64-bit little-endian ELF file"};

  if (header_.e_phentsize == sizeof(Elf64_Phdr) && header_.e_phnum) {
    segments_.resize(std::min<size_t>(header_.e_phnum, kMaxSegments));
    if (!pread(header_.e_phoff, segments_.data(), segments_.size() * sizeof(Elf64_Phdr))) segments_.clear();
  }

  if (header_.e_shentsize != sizeof(Elf64_Shdr) || header_.e_shoff == 0) return {};
  Elf64_Shdr first{};
  if (!pread(header_.e_shoff, &first, sizeof first)) return {};
  // gABI: counts that do not fit in the header are in the first section header.
  const uint64_t count = header_.e_shnum ? header_.e_shnum : first.sh_size;
  const uint64_t names_index = header_.e_shstrndx == SHN_XINDEX ? first.sh_link : header_.e_shstrndx;
  if (count > kMaxSections) return {};
  std::vector<Elf64_Shdr> headers(count);
  if (!pread(header_.e_shoff, headers.data(), count * sizeof(Elf64_Shdr))) return {};
  std::string names;
  if (names_index < count && headers[names_index].sh_size <= kMaxSectionNames)
    names = load(headers[names_index].sh_offset, headers[names_index].sh_size);
  sections_.reserve(count);
  for (const Elf64_Shdr& header : headers) {
    std::string_view text;
    if (header.sh_name < names.size()) {
      text = std::string_view(names).substr(header.sh_name, 64);
      text = text.substr(0, text.find('\0'));
    }
    sections_.push_back({std::string(text), header});
  }
  return {};
}

const ElfFile::Section* ElfFile::find_section(std::string_view name) const {
  const auto it = std::find_if(sections_.begin(), sections_.end(), [&](auto& s) { return s.name == name; });
  return it == sections_.end() ? nullptr : &*it;
}

const ElfFile::Section* ElfFile::find_section_of_type(uint32_t type) const {
  const auto it =
      std::find_if(sections_.begin(), sections_.end(), [&](auto& s) { return s.header.sh_type == type; });
  return it == sections_.end() ? nullptr : &*it;
}

bool ElfFile::pread(uint64_t offset, void* into, size_t size) const {
  if (offset > size_ || size > size_ - offset) return false;
  if (fd_.get() < 0) {
    if (size) std::memcpy(into, image_.data() + offset, size);
    return true;
  }
  auto* to = static_cast<char*>(into);
  while (size) {
    const ssize_t n = ::pread(fd_.get(), to, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n;
    offset += static_cast<uint64_t>(n);
    size -= static_cast<size_t>(n);
  }
  return true;
}

std::string ElfFile::load(uint64_t offset, uint64_t size) const {
  std::string bytes;
  if (size > kMaxPiece || offset > size_ || size > size_ - offset) return bytes;
  bytes.resize(size);
  if (!pread(offset, bytes.data(), bytes.size())) return {};
  return bytes;
}

std::string ElfFile::load(const Section& section) const {
  if (section.header.sh_type == SHT_NOBITS) return {};
  return load(section.header.sh_offset, section.header.sh_size);
}

bool ElfFile::read(uint64_t address, void* into, size_t size) const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_LOAD || address < segment.p_vaddr) continue;
    const uint64_t skip = address - segment.p_vaddr;
    if (skip > segment.p_filesz || size > segment.p_filesz - skip) continue;
    if (segment.p_offset + skip < skip) continue;
    return pread(segment.p_offset + skip, into, size);
  }
  return false;
}

std::optional<uint64_t> ElfFile::offset_of(uint64_t address) const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_LOAD || address < segment.p_vaddr) continue;
    const uint64_t skip = address - segment.p_vaddr;
    if (skip < segment.p_filesz && segment.p_offset + skip >= skip) return segment.p_offset + skip;
  }
  return std::nullopt;
}

std::string ElfFile::load_from_address(uint64_t address, uint64_t limit) const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_LOAD || address < segment.p_vaddr) continue;
    const uint64_t skip = address - segment.p_vaddr;
    if (skip >= segment.p_filesz || segment.p_offset + skip < skip) continue;
    const uint64_t offset = segment.p_offset + skip;
    if (offset >= size_) return {};
    return load(offset, std::min({segment.p_filesz - skip, limit, size_ - offset}));
  }
  return {};
}

std::string ElfFile::read_build_id() const {
  // Sections first: in a separate debug file the program headers describe another file's layout.
  for (const Section& section : sections_) {
    if (section.header.sh_type != SHT_NOTE || section.header.sh_size > kMaxNotes) continue;
    if (auto id = build_id_in(load(section), section.header.sh_addralign); !id.empty()) return id;
  }
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_NOTE || segment.p_filesz > kMaxNotes) continue;
    if (auto id = build_id_in(load(segment.p_offset, segment.p_filesz), segment.p_align); !id.empty())
      return id;
  }
  return {};
}

std::vector<Elf64_Dyn> ElfFile::read_dynamic() const {
  constexpr uint64_t kMaxEntries = 4096;
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_DYNAMIC) continue;
    std::vector<Elf64_Dyn> entries(std::min<uint64_t>(segment.p_filesz / sizeof(Elf64_Dyn), kMaxEntries));
    if (!pread(segment.p_offset, entries.data(), entries.size() * sizeof(Elf64_Dyn))) return {};
    const auto end = std::find_if(entries.begin(), entries.end(), [](auto& d) { return d.d_tag == DT_NULL; });
    entries.erase(end, entries.end());
    return entries;
  }
  return {};
}

size_t ElfFile::bytes() const {
  return sizeof *this + image_.capacity() + segments_.capacity() * sizeof(Elf64_Phdr) +
         sections_.capacity() * sizeof(Section);
}

}  // namespace looptrace
