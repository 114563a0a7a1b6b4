// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "looptrace.h"
#include "record/frame.h"
#include "record/task.h"
#include "runtimes/runtime.h"

namespace looptrace {

// The kernel side is a C object built by another compiler; these lines are the whole proof that the two
// agree. A change here is a change of the contract.
static_assert(sizeof(lt_hdr) == 32);
static_assert(offsetof(lt_capture, data) == 144);
static_assert(sizeof(lt_v8_frame) == 40);
static_assert(sizeof(lt_target) == 96);
static_assert(sizeof(lt_slot) % 8 == 0 && sizeof(lt_stats) % 8 == 0);
static_assert(sizeof(lt_row) == 8 && sizeof(lt_module) == 40);

/// Stacks of one moment, checked: counts and sizes agree.
struct RawCapture {
  lt_capture_head head;
  std::vector<uint64_t> kernel, user;
  std::vector<lt_py_frame> python;
  std::optional<lt_py_task> task;  ///< what they ran for, where BPF knew to look
  std::optional<TaskInfo::Place> task_created_at;
  std::vector<lt_v8_frame> v8;
  std::vector<NamedFrame> javascript;  ///< what the v8 frames are, once they were looked at

  /// The same place: equal stacks, wherever the leaf is within its function's call.
  bool same_stack(const RawCapture& other) const {
    return user == other.user && kernel == other.kernel && same_python(other) && same_javascript(other);
  }

 private:
  bool same_python(const RawCapture& other) const;
  bool same_javascript(const RawCapture& other) const;
};

/// A thread's name, which fills its array without a terminator at its longest.
std::string comm_text(const char (&comm)[LT_COMM_LEN]);

/// The header of a ring record, if the record is as long as it says.
const lt_hdr* record_header(std::span<const std::byte> bytes);

/// A record of fixed size; null if the kind or the size is another.
template <typename T>
const T* record_as(std::span<const std::byte> bytes, uint32_t kind) {
  const lt_hdr* hdr = record_header(bytes);
  return hdr && hdr->kind == kind && hdr->size >= sizeof(T) ? reinterpret_cast<const T*>(bytes.data())
                                                            : nullptr;
}

std::optional<RawCapture> decode_capture(std::span<const std::byte> bytes);

}  // namespace looptrace
