// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

namespace looptrace {

class Debuginfod;
class ElfFile;

/// The separate debug file of `file`, which the process sees at `path`: by build-id, then by .gnu_debuglink
/// (next to the file, in .debug/ and under /usr/lib/debug). Looked for in our own root, then in `root` (see
/// open_in_root) if not empty. Taken only if its build-id matches or, where one has none, its CRC does.
/// Where there is none here, `servers` are asked, if not null. Null if there is none.
std::unique_ptr<ElfFile> find_separate_debug(const ElfFile& file, const std::string& build_id,
                                             const std::string& path, const std::string& root,
                                             Debuginfod* servers = nullptr);

/// Whether `file` shares debug information with others, which dwz has put into a supplementary file
/// (.gnu_debugaltlink).
bool has_supplementary(const ElfFile& file);

/// That supplementary file: by build-id, then by its name if that is a path from the root; in our own root,
/// then in `root`. Null if there is none with that build-id.
std::unique_ptr<ElfFile> find_supplementary(const ElfFile& file, const std::string& root);

/// The small ELF file in .gnu_debugdata (xz), which has the .symtab of functions that .dynsym lacks. Null
/// if absent, broken, or larger than a sane limit when unpacked.
std::unique_ptr<ElfFile> unpack_debugdata(const ElfFile& file);

}  // namespace looptrace
