// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "stacks/elf_object.h"

namespace looptrace::v8 {

/// Where the members of one V8's objects lie that we read, and the instance types that tell objects apart.
/// Bytes from the object's start. Most come from the constants that V8 leaves for debuggers in its own binary
/// (v8dbg_*); what those do not tell comes from a table by V8 version, each row checked against that version
/// by runtimes_v8_live_test. Pointer compression is not known here: Node.js is not built with it.
struct Layout {
  int node = 0;  ///< major version of Node.js

  struct {
    int instance_type;
  } map;

  struct {
    uint16_t shared, script, scope, bytecodes, fixed_array;
    uint16_t positions;  ///< of a source position table: a ByteArray, on the trusted heap from 12.4 on
    uint16_t first_nonstring;
    uint16_t code_header,
        code;  ///< what lies in front of instructions, and what tells of them: the same in 10.2
    uint16_t deoptimization, literals;  ///< the arrays of optimized code's data
    uint16_t inlinings;                 ///< a ByteArray
  } type;

  struct {
    int shared;
  } function;

  struct {
    int data;  ///< its code: baseline Code or BytecodeArray
    int scope, script;
    int size;  ///< of what is read: up to its function literal's id
  } shared;

  struct {
    int source, name, line_offset, column_offset, line_ends, id;
    int size;
  } script;

  struct {
    int length, positions;
    int code;  ///< the first bytecode
  } bytecodes;

  bool positions_have_flags;  ///< of source position tables: see find_position()

  struct {
    int header;       ///< bytes of the header in front of the instructions
    int header_code;  ///< in it: the Code; 0 = it is that
    int start, size;  ///< of the instructions; start is 0 where they follow the Code
    int made_from;    ///< BytecodeArray or deoptimization data
    int positions;
  } code;

  struct {
    int literals, shared, inlinings;  ///< indices of DeoptimizationData
    int exits;     ///< where the exits begin, the numbers of eager and lazy ones, and then three of each exit
    bool wrapped;  ///< `shared` is in an object of its own, its first member
  } deoptimization;

  struct {
    int first;             ///< the first member behind the counts and, from 13.6 on, the positions
    bool positions_first;  ///< start and end come before the variables
    bool flags_are_smi;
    /// Of a module's own scope, in versions where that has a member more before the variables.
    std::optional<uint32_t> module_type;
  } scope;

  struct {
    int length, data;
  } array;

  struct {
    int length, chars;
    int first, second;   ///< ConsString
    int parent, offset;  ///< SlicedString
    int actual;          ///< ThinString
    int resource_data;   ///< ExternalString: the text's address, unless the string is uncached
  } string;
};

/// The layout of the V8 in `node`, whose version text is `version` ("11.3.244.8-node.38"). An Error where the
/// version is not in the table or the file lacks a constant.
Result<Layout> read_layout(ElfObject& node, std::string_view version);

}  // namespace looptrace::v8
