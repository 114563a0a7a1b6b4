// SPDX-License-Identifier: Apache-2.0
// A libjvm.so that tells its version and nothing else.
#include <stddef.h>
#include <stdint.h>

const char* fake_release = "";

struct field {
  const char *type, *name, *kind;
  uint64_t is_static, offset;
  const void* address;
};
struct size {
  const char* type;
  uint64_t size;
};

static const struct field fields[] = {
    {"Abstract_VM_Version", "_s_vm_release", "const char*", 1, 0, &fake_release},
    {0},
};
static const struct size sizes[] = {{0}};

const void *gHotSpotVMStructs = fields, *gHotSpotVMTypes = sizes;
uint64_t gHotSpotVMStructEntryTypeNameOffset = offsetof(struct field, type);
uint64_t gHotSpotVMStructEntryFieldNameOffset = offsetof(struct field, name);
uint64_t gHotSpotVMStructEntryTypeStringOffset = offsetof(struct field, kind);
uint64_t gHotSpotVMStructEntryIsStaticOffset = offsetof(struct field, is_static);
uint64_t gHotSpotVMStructEntryOffsetOffset = offsetof(struct field, offset);
uint64_t gHotSpotVMStructEntryAddressOffset = offsetof(struct field, address);
uint64_t gHotSpotVMStructEntryArrayStride = sizeof(struct field);
uint64_t gHotSpotVMTypeEntryTypeNameOffset = offsetof(struct size, type);
uint64_t gHotSpotVMTypeEntrySizeOffset = offsetof(struct size, size);
uint64_t gHotSpotVMTypeEntryArrayStride = sizeof(struct size);
