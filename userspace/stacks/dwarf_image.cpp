// SPDX-License-Identifier: Apache-2.0
#include "stacks/dwarf_image.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "stacks/elf_file.h"

namespace looptrace {
namespace {

constexpr uint64_t kMaxDwarf = 512u << 20;
constexpr std::string_view kPartNames[] = {".debug_info", ".debug_line"};
constexpr std::string_view kWholeNames[] = {".debug_abbrev",     ".debug_str",      ".debug_line_str",
                                            ".debug_ranges",     ".debug_rnglists", ".debug_addr",
                                            ".debug_str_offsets"};

struct Content {
  uint64_t at = 0, packed_size = 0;  // in the file
  uint64_t size = 0;                 // in the image
  bool packed = false;
  bool foreign = false;  // packed in a way that is left to libdw, which may know it
  uint64_t unpacked_size = 0;
};

// Before there was SHF_COMPRESSED, sections were named .zdebug_* and began with "ZLIB" and their size.
std::optional<Content> content_of(const ElfFile& file, const ElfFile::Section& section) {
  const Elf64_Shdr& header = section.header;
  if (header.sh_type == SHT_NOBITS || header.sh_size > file.size()) return std::nullopt;
  Content content{header.sh_offset, header.sh_size, header.sh_size, false, false, header.sh_size};
  uint64_t header_size = 0;
  if (header.sh_flags & SHF_COMPRESSED) {
    Elf64_Chdr packed;
    if (!file.pread(header.sh_offset, &packed, sizeof packed)) return std::nullopt;
    content.unpacked_size = packed.ch_size;
    if (packed.ch_type != ELFCOMPRESS_ZLIB) {
      content.foreign = true;
      return content;
    }
    header_size = sizeof packed;
  } else if (section.name.starts_with(".z")) {
    uint8_t packed[12];
    if (!file.pread(header.sh_offset, packed, sizeof packed)) return std::nullopt;
    if (std::memcmp(packed, "ZLIB", 4) != 0) return std::nullopt;
    content.unpacked_size = 0;
    for (size_t i = 4; i < sizeof packed; ++i) content.unpacked_size = content.unpacked_size << 8 | packed[i];
    header_size = sizeof packed;
  }
  content.packed = header_size != 0;
  if (header_size > content.packed_size) return std::nullopt;
  content.at += header_size;
  content.packed_size -= header_size;
  content.size = content.unpacked_size;
  return content;
}

std::string plain_name(const std::string& name) {
  return name.starts_with(".zdebug_") ? "." + name.substr(2) : name;
}

}  // namespace

std::unique_ptr<DwarfImage> DwarfImage::of(const ElfFile& file) {
  std::unique_ptr<DwarfImage> image(new DwarfImage(file));
  return image->lay_out() ? std::move(image) : nullptr;
}

DwarfImage::~DwarfImage() {
  elf_.reset();
  if (base_) ::munmap(base_, mapped_);
}

// Its header, the sections' headers and names, then the sections, each on pages of its own.
bool DwarfImage::lay_out() {
  struct Wanted {
    std::string name;
    Content content;
    std::optional<Part> part;
  };
  std::vector<Wanted> wanted;
  uint64_t sum = 0;
  bool lines = false, units = false;
  for (const ElfFile::Section& section : file_.sections()) {
    std::string name = plain_name(section.name);
    const auto part = std::find(std::begin(kPartNames), std::end(kPartNames), name);
    if (part == std::end(kPartNames) &&
        std::find(std::begin(kWholeNames), std::end(kWholeNames), name) == std::end(kWholeNames))
      continue;
    const auto same = [&](const Wanted& w) { return w.name == name; };
    if (std::any_of(wanted.begin(), wanted.end(), same)) continue;
    const auto content = content_of(file_, section);
    if (!content) continue;
    if (content->unpacked_size > kMaxDwarf - sum) return false;
    sum += content->unpacked_size;
    std::optional<Part> as_part;
    lines |= name == ".debug_line";
    units |= name == ".debug_info";
    if (part != std::end(kPartNames) && !content->foreign)
      as_part = static_cast<Part>(part - std::begin(kPartNames));
    if (!as_part) whole_bytes_ += content->unpacked_size;
    wanted.push_back({std::move(name), *content, as_part});
  }

  if (!lines || !units) return false;

  std::string names(1, '\0');
  std::vector<Elf64_Shdr> headers(wanted.size() + 2);
  const auto on_page = [](uint64_t at) { return (at + kPage - 1) & ~uint64_t{kPage - 1}; };
  uint64_t end = on_page(sizeof(Elf64_Ehdr) + headers.size() * sizeof(Elf64_Shdr) + 64 * (wanted.size() + 1));
  sections_.reserve(wanted.size());  // parts_ points into it
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto& [name, content, part] = wanted[i];
    Elf64_Shdr& header = headers[i + 1];
    header.sh_name = static_cast<uint32_t>(names.size());
    header.sh_type = SHT_PROGBITS;
    header.sh_offset = end;
    header.sh_size = content.size;
    header.sh_addralign = 1;
    if (content.foreign) header.sh_flags = SHF_COMPRESSED, header.sh_addralign = 8;
    names += name + '\0';
    Section& section = sections_.emplace_back();
    section.name = name;
    section.foreign = content.foreign;
    section.at = end;
    section.size = content.size;
    section.file_at = content.at;
    if (content.packed)
      section.packed = std::make_unique<PackedSection>(file_, content.at, content.packed_size, content.size);
    if (part) {
      section.there.resize((content.size + kPage - 1) / kPage);
      parts_[*part] = &section;
    }
    end = on_page(end + content.size);
  }
  void* mapped =
      ::mmap(nullptr, end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  base_ = static_cast<uint8_t*>(mapped);
  mapped_ = end;
  Elf64_Ehdr header = file_.header();
  header.e_phoff = 0;
  header.e_phnum = 0;
  header.e_shoff = sizeof header;
  header.e_shnum = static_cast<uint16_t>(headers.size());
  header.e_shstrndx = static_cast<uint16_t>(headers.size() - 1);
  Elf64_Shdr& names_header = headers.back();
  names_header.sh_name = static_cast<uint32_t>(names.size());
  names += std::string(".shstrtab") + '\0';
  names_header.sh_type = SHT_STRTAB;
  names_header.sh_offset = sizeof header + headers.size() * sizeof headers[0];
  names_header.sh_size = names.size();
  names_header.sh_addralign = 1;
  std::memcpy(base_, &header, sizeof header);
  std::memcpy(base_ + sizeof header, headers.data(), headers.size() * sizeof headers[0]);
  std::memcpy(base_ + names_header.sh_offset, names.data(), names.size());
  elf_version(EV_CURRENT);
  elf_.reset(elf_memory(reinterpret_cast<char*>(base_), mapped_));
  return elf_ != nullptr;
}

uint64_t DwarfImage::size(Part part) const { return parts_[part] ? parts_[part]->size : 0; }

bool DwarfImage::is_packed(Part part) const { return parts_[part] && parts_[part]->packed; }

std::string_view DwarfImage::section(std::string_view name) const {
  const auto found =
      std::find_if(sections_.begin(), sections_.end(), [&](const Section& s) { return s.name == name; });
  if (found == sections_.end()) return {};
  if (!found->foreign) return {reinterpret_cast<const char*>(base_ + found->at), found->size};
  Elf_Scn* const unpacked = elf_getscn(elf_.get(), static_cast<size_t>(found - sections_.begin()) + 1);
  const Elf_Data* const data = elf_rawdata(unpacked, nullptr);
  return data && data->d_buf ? std::string_view(static_cast<const char*>(data->d_buf), data->d_size)
                             : std::string_view();
}

bool DwarfImage::fill(Section& section, uint64_t from, uint64_t to) {
  uint8_t* const into = base_ + section.at + from;
  const bool filled = section.packed ? section.packed->read(from, to, into)
                                     : file_.pread(section.file_at + from, into, to - from);
  failed_ |= !filled;
  read_bytes_ += to - from;
  return filled;
}

bool DwarfImage::read_on() {
  for (Section& section : sections_) {
    if (!section.there.empty() || section.read == section.size) continue;
    const uint64_t to = std::min(section.size, section.read + kPiece);
    if (!fill(section, section.read, to)) return true;
    section.read = to;
    if (to == section.size) section.packed.reset();
    return false;
  }
  return true;
}

bool DwarfImage::need(Part part, uint64_t offset, uint64_t size) {
  if (!parts_[part]) return true;
  Section& section = *parts_[part];
  if (failed_ || offset > section.size) return false;
  const uint64_t end = offset + std::min(size, section.size - offset);
  const size_t pages_end = (end + kPage - 1) / kPage;
  for (size_t page = offset / kPage; page < pages_end; ++page) {
    if (section.there[page]) continue;
    size_t last = page;
    while (last + 1 < pages_end && !section.there[last + 1]) ++last;
    if (!fill(section, page * kPage, std::min((last + 1) * kPage, section.size))) return false;
    for (; page <= last; ++page) section.there[page] = true, ++filled_pages_;
  }
  return true;
}

bool DwarfImage::has(Part part, uint64_t offset, uint64_t size) const {
  if (!parts_[part]) return true;
  const Section& section = *parts_[part];
  if (offset > section.size) return false;
  const uint64_t end = offset + std::min(size, section.size - offset);
  for (size_t page = offset / kPage; page * kPage < end; ++page)
    if (!section.there[page]) return false;
  return true;
}

void DwarfImage::drop(Part part) {
  Section* const section = parts_[part];
  if (!section) return;
  ::madvise(base_ + section->at, section->size, MADV_DONTNEED);
  filled_pages_ -= static_cast<size_t>(std::count(section->there.begin(), section->there.end(), true));
  section->there.assign(section->there.size(), false);
}

size_t DwarfImage::bytes() const {
  size_t sum = sizeof *this + whole_bytes_ + filled();
  for (const Section& section : sections_) {
    sum += section.there.size() / 8 + sizeof section;
    if (section.packed) sum += section.packed->bytes();
  }
  return sum;
}

}  // namespace looptrace
