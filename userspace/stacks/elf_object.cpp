// SPDX-License-Identifier: Apache-2.0
#include "stacks/elf_object.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "stacks/code_rows.h"
#include "stacks/dwarf_lines.h"
#include "stacks/eh_frame.h"
#include "stacks/elf_file.h"
#include "stacks/go_pclntab.h"
#include "stacks/plt_names.h"
#include "stacks/separate_debug.h"
#include "stacks/symbol_table.h"

namespace looptrace {
namespace {

constexpr uint64_t kPageMask = ~uint64_t{4095};

// libc.so.6 has an interpreter too, so that it can be run: a soname tells libraries from programs.
bool looks_like_program(const ElfFile& file) {
  if (file.header().e_type == ET_EXEC) return true;
  if (file.header().e_type != ET_DYN) return false;
  bool soname = false;
  for (const Elf64_Dyn& entry : file.read_dynamic()) {
    if (entry.d_tag == DT_FLAGS_1 && (entry.d_un.d_val & DF_1_PIE)) return true;
    if (entry.d_tag == DT_SONAME) soname = true;
  }
  const auto& segments = file.segments();
  return !soname &&
         std::any_of(segments.begin(), segments.end(), [](auto& s) { return s.p_type == PT_INTERP; });
}

// Behind a function is padding up to the next one's alignment.
constexpr uint32_t kLongestPadding = 63;

std::vector<uint32_t> edges_of(const std::vector<lt_row>& rows) {
  std::vector<uint32_t> edges;
  bool code = false;
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool gap = rows[i].kind == LT_ROW_GAP;
    const bool padding = gap && i + 1 < rows.size() && rows[i + 1].pc - rows[i].pc <= kLongestPadding;
    if (code == gap && !padding) edges.push_back(rows[i].pc);
    if (!padding) code = !gap;
  }
  edges.shrink_to_fit();
  return edges;
}

}  // namespace

struct ElfObject::Impl {
  explicit Impl(std::unique_ptr<ElfFile> f) : file(std::move(f)) {}

  std::unique_ptr<ElfFile> file;
  std::string path, name, build_id, root;
  bool program = false;
  std::shared_ptr<Debuginfod> servers;

  std::optional<std::vector<lt_row>> rows;
  bool rows_used = false, dwarf_used = false, names_used = false;
  std::optional<std::vector<uint32_t>> edges;  // where code that the rows tell of begins and ends, by turns
  PltNames plt{*file};
  std::optional<SymbolTable> symbols;
  std::optional<NameIndex> dynamic_names, static_names;
  std::set<std::string, std::less<>> found_names;  // what find_by_name() gave out
  bool names_indexed = false, static_names_indexed = false;
  mutable std::map<std::string, std::string, std::less<>> sections;

  bool go_looked_for = false;
  std::unique_ptr<GoPclntab> go;

  bool debug_looked_for = false;
  std::unique_ptr<ElfFile> debug;
  bool no_dwarf = false;
  std::unique_ptr<DwarfLines> dwarf;

  ElfFile* separate_debug() {
    if (!debug_looked_for) {
      debug_looked_for = true;
      debug = find_separate_debug(*file, build_id, path, root, servers.get());
    }
    return debug.get();
  }

  void drop_names() {
    dynamic_names.reset();
    static_names.reset();
    names_indexed = static_names_indexed = false;
  }

  std::vector<Position> go_position(uint64_t address);
  const GoPclntab* go_table() {
    if (!go_looked_for) {
      go_looked_for = true;
      go = GoPclntab::load(*file);
    }
    return go.get();
  }

  const SymbolTable& function_table();
  DwarfLines* open_lines();
};

std::vector<ElfObject::Position> ElfObject::Impl::go_position(uint64_t address) {
  const GoPclntab* table = go_table();
  if (!table) return {};
  const auto function = table->find(address);
  if (!function) return {};
  Position position{std::string(function->name), {}, 0};
  if (const auto line = table->line_of(address)) {
    position.file = line->file;
    position.line = line->line;
  }
  return {position};
}

const SymbolTable& ElfObject::Impl::function_table() {
  if (symbols) return *symbols;
  SymbolTable& table = symbols.emplace(*file);
  if (table.add(*file, SHT_SYMTAB) || (separate_debug() && table.add(*debug, SHT_SYMTAB))) return table;
  bool all = false;
  if (auto unpacked = unpack_debugdata(*file)) all = table.add(std::move(unpacked), SHT_SYMTAB);
  table.add(*file, SHT_DYNSYM, all);
  return table;
}

ElfObject::ElfObject(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  const std::string& path = impl_->path;
  impl_->name = path.substr(path.rfind('/') + 1);
  impl_->build_id = impl_->file->read_build_id();
  impl_->program = looks_like_program(*impl_->file);
}

ElfObject::~ElfObject() = default;

Result<std::shared_ptr<ElfObject>> ElfObject::from_fd(UniqueFd fd, std::string name, std::string root,
                                                      std::shared_ptr<Debuginfod> servers) {
  auto file = ElfFile::from_fd(std::move(fd), name);
  if (!file) return file.error();
  auto impl = std::make_unique<Impl>(std::move(*file));
  impl->path = std::move(name);
  impl->root = std::move(root);
  impl->servers = std::move(servers);
  return std::shared_ptr<ElfObject>(new ElfObject(std::move(impl)));
}

Result<std::shared_ptr<ElfObject>> ElfObject::from_memory(std::vector<uint8_t> image, std::string name) {
  auto file = ElfFile::from_memory(std::move(image), name);
  if (!file) return file.error();
  auto impl = std::make_unique<Impl>(std::move(*file));
  impl->path = std::move(name);
  return std::shared_ptr<ElfObject>(new ElfObject(std::move(impl)));
}

const std::string& ElfObject::name() const { return impl_->name; }
const std::string& ElfObject::path() const { return impl_->path; }
const std::string& ElfObject::build_id() const { return impl_->build_id; }
bool ElfObject::is_main_program() const { return impl_->program; }

std::optional<uint64_t> ElfObject::bias(uint64_t start, uint64_t offset) const {
  // Neighbouring segments may share a page of the file: the executable one is meant.
  for (const bool executable : {true, false}) {
    for (const Elf64_Phdr& segment : impl_->file->segments()) {
      if (segment.p_type != PT_LOAD || executable != ((segment.p_flags & PF_X) != 0)) continue;
      const uint64_t first = segment.p_offset & kPageMask;
      const uint64_t size = segment.p_filesz + (segment.p_offset - first);
      if (offset < first || offset - first >= size) continue;
      return start - (segment.p_vaddr + (offset - segment.p_offset));
    }
  }
  return std::nullopt;
}

const std::vector<lt_row>& ElfObject::rows() {
  impl_->rows_used = true;
  if (!impl_->rows) {
    std::vector<uint64_t> functions;
    impl_->rows = load_rows(*impl_->file, &functions);
    if (const GoPclntab* go = impl_->go_table())
      go->add_rows(*impl_->rows);
    else
      add_code_rows(*impl_->file, impl_->program, functions, *impl_->rows);
    if (!impl_->edges) impl_->edges = edges_of(*impl_->rows);
  }
  return *impl_->rows;
}

bool ElfObject::covers(uint64_t address) {
  if (!impl_->edges) (void)rows();
  const std::vector<uint32_t>& edges = *impl_->edges;
  return (std::upper_bound(edges.begin(), edges.end(), address) - edges.begin()) % 2 == 1;
}

void ElfObject::drop_rows() { impl_->rows.reset(); }

void ElfObject::drop_idle() {
  if (!std::exchange(impl_->rows_used, false)) drop_rows();
  // Compressed ones would take up to 1.7 ms to unpack at the next frame.
  if (!std::exchange(impl_->dwarf_used, false) && !(impl_->dwarf && impl_->dwarf->is_packed())) drop_units();
  if (!std::exchange(impl_->names_used, false)) impl_->drop_names();
}

void ElfObject::drop_tables() {
  drop_rows();
  drop_dwarf();
  impl_->drop_names();
  impl_->edges.reset();
  impl_->symbols.reset();
}

std::optional<Symbol> ElfObject::find_symbol(uint64_t address) {
  if (const auto found = impl_->plt.find(address)) return found;
  if (const auto found = impl_->function_table().find(address)) return found;
  if (const GoPclntab* go = impl_->go_table()) {
    if (const auto function = go->find(address))
      return Symbol{function->name, function->start, function->end - function->start};
  }
  return std::nullopt;
}

std::optional<Symbol> ElfObject::find_by_name(std::string_view name) {
  Impl& impl = *impl_;
  impl.names_used = true;
  if (!impl.names_indexed) {
    impl.names_indexed = true;
    if (auto raw = load_symbols(*impl.file, SHT_DYNSYM)) impl.dynamic_names.emplace(*impl.file, *raw);
  }
  const auto keep = [&](Symbol found) {  // the view must outlive the caller's string
    found.name = *impl.found_names.emplace(found.name).first;
    return found;
  };
  if (impl.dynamic_names)
    if (const auto found = impl.dynamic_names->find(name)) return keep(*found);
  if (!impl.static_names_indexed) {
    impl.static_names_indexed = true;
    if (auto raw = load_symbols(*impl.file, SHT_SYMTAB)) impl.static_names.emplace(*impl.file, *raw);
  }
  if (impl.static_names)
    if (const auto found = impl.static_names->find(name)) return keep(*found);
  return std::nullopt;
}

bool ElfObject::read(uint64_t address, void* into, size_t size) const {
  return impl_->file->read(address, into, size);
}

std::string_view ElfObject::section(std::string_view name) const {
  auto& loaded = impl_->sections;
  if (const auto it = loaded.find(name); it != loaded.end()) return it->second;
  const ElfFile::Section* section = impl_->file->find_section(name);
  if (!section) return {};
  return loaded.emplace(name, impl_->file->load(*section)).first->second;
}

DwarfLines* ElfObject::Impl::open_lines() {
  dwarf_used = true;
  if (!dwarf && !no_dwarf) {
    dwarf = DwarfLines::open(*file, root);
    if (!dwarf && separate_debug()) dwarf = DwarfLines::open(*debug, root);
    no_dwarf = !dwarf;
  }
  return dwarf.get();
}

bool ElfObject::lines_are_read() {
  DwarfLines* const open = impl_->open_lines();
  return !open || open->all_read();
}

std::vector<ElfObject::Position> ElfObject::positions(uint64_t address) {
  Impl& impl = *impl_;
  if (DwarfLines* lines = impl.open_lines()) {
    if (lines->read_units()) return lines->positions(address);
    impl.dwarf.reset();
    impl.no_dwarf = true;
  }
  return impl.go_position(address);
}

bool ElfObject::read_on(bool lines) {
  if (!impl_->symbols) {
    (void)impl_->function_table();
    return false;
  }
  return !lines || read_lines_on();
}

bool ElfObject::read_lines_on() {
  DwarfLines* const open = impl_->open_lines();
  return !open || open->read_on();
}

void ElfObject::drop_dwarf() { impl_->dwarf.reset(); }

void ElfObject::drop_units() {
  if (impl_->dwarf) impl_->dwarf->drop_units();
}

size_t ElfObject::dwarf_bytes() const { return impl_->dwarf ? impl_->dwarf->bytes() : 0; }

size_t ElfObject::bytes() const {
  const Impl& impl = *impl_;
  size_t sum = sizeof *this + sizeof impl + impl.path.capacity() + impl.file->bytes() + dwarf_bytes();
  if (impl.debug) sum += impl.debug->bytes();
  if (impl.go) sum += impl.go->bytes();
  if (impl.rows) sum += impl.rows->capacity() * sizeof(lt_row);
  if (impl.edges) sum += impl.edges->capacity() * sizeof(uint32_t);
  sum += impl.plt.bytes();
  if (impl.symbols) sum += impl.symbols->bytes();
  if (impl.dynamic_names) sum += impl.dynamic_names->bytes();
  if (impl.static_names) sum += impl.static_names->bytes();
  for (const std::string& name : impl.found_names) sum += name.capacity() + 64;
  for (const auto& [name, bytes] : impl.sections) sum += name.capacity() + bytes.capacity() + 96;
  return sum;
}

}  // namespace looptrace
