// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dwarf.h>
#include <elfutils/libdw.h>

#include <cstddef>
#include <memory>
#include <string>

#include "base/free_with.h"
#include "stacks/internal_name.h"
#include "stacks/symbolizer.h"

namespace looptrace {

// Bounds on a walk through one unit's tree: broken files have loops.
constexpr size_t kMaxDwarfDies = 1u << 20;
constexpr int kMaxDwarfDepth = 128;

using DwarfPtr = std::unique_ptr<Dwarf, FreeWith<dwarf_end>>;

/// Code of a unit, [low, high).
struct DwarfUnitRange {
  uint64_t low, high;
  Dwarf_Off unit;
};

inline std::string dwarf_function_name(Dwarf_Die* die) {
  Dwarf_Attribute attribute;
  for (const unsigned kind : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
    if (!dwarf_attr_integrate(die, kind, &attribute)) continue;
    if (const char* name = dwarf_formstring(&attribute)) return demangle(name);
  }
  if (!dwarf_attr_integrate(die, DW_AT_name, &attribute)) return {};
  const char* name = dwarf_formstring(&attribute);
  return name ? std::string(without_internal_prefix(name)) : "";
}

// A scope that may hold subprograms but has no code range of its own.
inline bool is_dwarf_container(int tag) {
  return tag == DW_TAG_namespace || tag == DW_TAG_module || tag == DW_TAG_structure_type ||
         tag == DW_TAG_class_type || tag == DW_TAG_union_type || tag == DW_TAG_enumeration_type;
}

inline bool is_dwarf_code(int tag) {
  return tag == DW_TAG_subprogram || tag == DW_TAG_lexical_block || tag == DW_TAG_inlined_subroutine ||
         tag == DW_TAG_try_block || tag == DW_TAG_catch_block;
}

}  // namespace looptrace
