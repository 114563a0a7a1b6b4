// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <elfutils/libdw.h>
#include <libelf.h>

#include <optional>
#include <stop_token>
#include <vector>

#include "stacks/dwarf_tree.h"
#include "stacks/source_index.h"

namespace looptrace {

/// Goes through all of a file's DWARF. `shared` is what dwz took out of it, or null; `ranges` are those of
/// its units, by low. Nothing if it is too much, cannot be read, or `stop` was asked for.
std::optional<SourceIndex> index_sources(Elf* elf, Dwarf* shared, const std::vector<DwarfUnitRange>& ranges,
                                         const std::stop_token& stop);

}  // namespace looptrace
