// SPDX-License-Identifier: Apache-2.0
#include "runtimes/v8/layout.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <string>

namespace looptrace::v8 {
namespace {

// What v8dbg_* do not tell. Sources: deps/v8/src/objects/{bytecode-array,scope-info,script,shared-function-
// info,code,deoptimization-data}.tq and .h of the Node.js release in question.
struct Known {
  std::string_view v8;  // major.minor
  int node;
  int source_positions;  // BytecodeArray
  bool positions_have_flags;
  bool positions_first;
  bool flags_are_smi;
  std::optional<uint32_t> module_type;
  int shared_tail;  // SharedFunctionInfo: from `flags` to the end of function_literal_id
  decltype(Layout::code) code;
  decltype(Layout::deoptimization) deoptimization;
};
constexpr std::array<Known, 5> kKnown = {{
    {"10.2.", 18, 32, false, false, true, {}, 8, {128, 0, 0, 40, 16, 24}, {2, 6, 7, 8, false}},
    {"11.3.", 20, 32, false, false, true, {}, 8, {16, 8, 40, 56, 16, 24}, {2, 6, 7, 8, false}},
    {"12.4.", 22, 24, false, false, true, 3, 8, {32, 8, 40, 52, 8, 16}, {2, 6, 7, 8, false}},
    {"13.6.", 24, 24, false, true, false, 5, 8, {32, 8, 40, 56, 8, 16}, {3, 7, 8, 9, true}},
    {"14.6.", 26, 24, true, true, false, 5, 8, {32, 8, 40, 56, 8, 16}, {3, 7, 8, 9, true}},
}};

class Constants {
 public:
  explicit Constants(ElfObject& node) : node_(node) {}

  // The first of `names` that the file has: members' types are part of the names and changed over time.
  int get(std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) {
      const auto symbol = node_.find_by_name("v8dbg_" + std::string(name));
      int32_t value = 0;
      if (symbol && read(symbol->start, value)) return value;
    }
    if (missing_.empty()) missing_ = *names.begin();
    return 0;
  }
  uint16_t type(std::initializer_list<std::string_view> names) { return static_cast<uint16_t>(get(names)); }

  const std::string& missing() const { return missing_; }

 private:
  // A constant of 0 lies in .bss, of which the file holds nothing.
  bool read(uint64_t address, int32_t& value) {
    if (!node_.read(address, &value, sizeof value)) value = 0;
    return true;
  }

  ElfObject& node_;
  std::string missing_;
};

}  // namespace

Result<Layout> read_layout(ElfObject& node, std::string_view version) {
  const auto known =
      std::find_if(kKnown.begin(), kKnown.end(), [&](const Known& k) { return version.starts_with(k.v8); });
  if (known == kKnown.end())
    return Error{"V8 " + std::string(version) + " is not known", 0, Fault::unsupported};

  Constants c(node);
  Layout l{};
  l.node = known->node;
  l.map.instance_type = c.get({"class_Map__instance_type__uint16_t"});
  l.type.shared = c.type({"type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE"});
  l.type.script = c.type({"type_Script__SCRIPT_TYPE"});
  l.type.scope = c.type({"type_ScopeInfo__SCOPE_INFO_TYPE"});
  l.type.bytecodes = c.type({"type_BytecodeArray__BYTECODE_ARRAY_TYPE"});
  l.type.fixed_array = c.type({"type_FixedArray__FIXED_ARRAY_TYPE"});
  l.type.positions =
      c.type({"type_TrustedByteArray__TRUSTED_BYTE_ARRAY_TYPE", "type_ByteArray__BYTE_ARRAY_TYPE"});
  l.type.code = c.type({"type_Code__CODE_TYPE"});
  l.type.code_header = c.type({"type_InstructionStream__INSTRUCTION_STREAM_TYPE", "type_Code__CODE_TYPE"});
  l.type.deoptimization = l.type.fixed_array;
  l.type.literals = c.type({"type_WeakFixedArray__WEAK_FIXED_ARRAY_TYPE"});
  l.type.inlinings = c.type({"type_ByteArray__BYTE_ARRAY_TYPE"});
  if (known->node == 22) {
    l.type.deoptimization = c.type({"type_TrustedFixedArray__TRUSTED_FIXED_ARRAY_TYPE"});
  } else if (known->node >= 24) {
    l.type.deoptimization = c.type({"type_ProtectedFixedArray__PROTECTED_FIXED_ARRAY_TYPE"});
    l.type.literals = c.type({"type_TrustedWeakFixedArray__TRUSTED_WEAK_FIXED_ARRAY_TYPE"});
    l.type.inlinings = l.type.positions;
  }
  l.type.first_nonstring = c.type({"FirstNonstringType"});
  l.function.shared = c.get({"class_JSFunction__shared__SharedFunctionInfo"});
  l.shared.scope = c.get({"class_SharedFunctionInfo__name_or_scope_info__Object",
                          "class_SharedFunctionInfo__name_or_scope_info__Tagged_NameOrScopeInfoT_",
                          "class_SharedFunctionInfo__name_or_scope_info__Tagged_Object_"});
  l.shared.script = c.get({"class_SharedFunctionInfo__script_or_debug_info__HeapObject",
                           "class_SharedFunctionInfo__raw_script__Tagged_Object_"});
  l.shared.data = 8;
  l.shared.size = c.get({"class_SharedFunctionInfo__flags__int"}) + known->shared_tail;
  l.script.source = c.get({"class_Script__source__Object"});
  l.script.name = c.get({"class_Script__name__Object"});
  l.script.line_offset = l.script.name + 8;
  l.script.column_offset = l.script.name + 16;
  l.script.line_ends = c.get({"class_Script__line_ends__Object"});
  l.script.id = l.script.line_ends + 8;
  l.script.size = l.script.id + 8;
  l.bytecodes.code = c.get({"class_BytecodeArray__data__uintptr_t"});
  l.bytecodes.length = c.get({"class_FixedArrayBase__length__SMI"});
  l.bytecodes.positions = known->source_positions;
  l.positions_have_flags = known->positions_have_flags;
  l.code = known->code;
  l.deoptimization = known->deoptimization;
  l.scope.first = 8 + 8 * c.get({"scopeinfo_idx_first_vars"});
  l.scope.positions_first = known->positions_first;
  l.scope.flags_are_smi = known->flags_are_smi;
  l.scope.module_type = known->module_type;
  l.array.length = c.get({"class_FixedArrayBase__length__SMI"});
  l.array.data = c.get({"class_FixedArray__data__uintptr_t"});
  l.string.length = c.get({"class_String__length__int32_t"});
  l.string.chars = c.get({"class_SeqOneByteString__chars__char"});
  l.string.first = c.get({"class_ConsString__first__String"});
  l.string.second = c.get({"class_ConsString__second__String"});
  l.string.parent = c.get({"class_SlicedString__parent__String"});
  l.string.offset = c.get({"class_SlicedString__offset__SMI"});
  l.string.actual = c.get({"class_ThinString__actual__String"});
  l.string.resource_data = c.get({"class_ExternalString__resource__Object"}) + 8;
  if (!c.missing().empty()) {
    return Error{"V8 " + std::string(version) + " without v8dbg_" + c.missing(), 0, Fault::unsupported};
  }
  return l;
}

}  // namespace looptrace::v8
