// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "looptrace.h"
#include "runtimes/hotspot/vm_structs.h"
#include "runtimes/remote_memory.h"

namespace looptrace::hotspot {

/// A piece of code that HotSpot keeps: a compiled method, the interpreter, a stub.
struct CodeBlob {
  uint64_t start = 0, end = 0;  ///< of its instructions
  int frame_words = 0;          ///< of its frames, the return address included; 0 if they have no fixed size
  int frame_complete = 0;       ///< offset at which a frame is set up; negative: at once
  std::string name;             ///< "nmethod", "Interpreter", "StubRoutines (1)"
  uint64_t method = 0;          ///< of an nmethod: its Method*
  uint64_t address = 0;         ///< of the CodeBlob itself
  uint32_t compile_id = 0;      ///< of an nmethod: no other has it

  bool operator==(const CodeBlob&) const = default;
};

/// HotSpot's code cache, walked from outside: CodeCache::_heaps, in each heap a chain of blocks, in each used
/// block a CodeBlob that knows the size of its frames. From that come unwind rows for code that has no unwind
/// table and, as C1 and C2 compile, no frame pointer either.
///
/// The process compiles and frees code all the while: what is read may be torn, every block is checked, and
/// the work of one update is bounded: what is past the bounds is left out, and counted. Code that came since
/// the last update has no rows: a walk ends there, and says so.
class CodeCache {
 public:
  static constexpr size_t kMaxBlobs = 100'000;
  static constexpr size_t kMaxBlocks = 4 * kMaxBlobs;  ///< free ones included
  static constexpr size_t kMaxCode = 128u << 20;       ///< bytes read; what is kept from before costs nothing
  static constexpr size_t kMaxRows = 4'000'000;

  static std::vector<std::string_view> types();
  /// Nothing if `structs` lacks what is needed.
  static std::optional<CodeCache> of(const VmStructs& structs);

  /// Reads it all anew. Rows of blobs that are as they were are kept.
  void update(const RemoteMemory& memory);

  /// The reserved range; rows are relative to its start.
  uint64_t low() const { return low_; }
  uint64_t high() const { return high_; }
  const std::shared_ptr<const std::vector<lt_row>>& rows() const { return rows_; }
  /// Blobs that the last update met but had no room for, and heaps that it did not look at to their end.
  size_t left_out() const { return left_out_; }

  /// The blob at an address, as of the last update.
  const CodeBlob* find(uint64_t address) const;
  /// Whether it is still there: another may have taken its place since.
  bool still_holds(const RemoteMemory& memory, const CodeBlob& blob);

 private:
  struct Number {
    uint64_t offset = 0;
    unsigned width = 0;
  };
  struct Layout {
    uint64_t heap = 0;                                                       // JDK 8 has one: its address
    uint64_t heaps = 0, low_bound = 0, high_bound = 0;                       // addresses
    uint64_t array_length = 0, array_data = 0;                               // GrowableArray
    uint64_t memory_low = 0, memory_high = 0, segmap = 0, log2_segment = 0;  // CodeHeap
    uint64_t reserved_low = 0, reserved_high = 0;                            // CodeHeap
    uint64_t header = 0, used = 0;                                           // HeapBlock
    Number length;
    bool by_offset = false;  // begin and end of code are told relative to the CodeBlob, as 32 bits
    uint64_t name = 0, frame_size = 0, code_begin = 0, code_end = 0, method = 0, compile_id = 0;  // CodeBlob
    Number frame_complete;
    size_t block = 0;  // bytes of a block in which all that is
  };
  struct Known {
    CodeBlob blob;
    std::vector<lt_row> rows;
  };
  using Blobs = std::map<uint64_t, Known>;  // by start of code
  struct Update {
    Blobs found;
    size_t blocks = 0, code = 0, rows = 0;  // looked at, bytes read, kept
    size_t left_out = 0;
  };

  void read_heap(const RemoteMemory& memory, uint64_t heap, Update& update);
  void take_blob(const RemoteMemory& memory, CodeBlob blob, Update& update);
  /// The blob at `address`, in a block that ends at `end`.
  std::optional<CodeBlob> read_blob(const RemoteMemory& memory, uint64_t address, uint64_t end,
                                    const std::vector<uint8_t>& block);
  const std::string& blob_name(const RemoteMemory& memory, uint64_t address);

  Layout layout_;
  uint64_t low_ = 0, high_ = 0;
  Blobs blobs_;
  size_t left_out_ = 0;
  std::unordered_map<uint64_t, std::string> names_;  // by address of the text
  std::shared_ptr<const std::vector<lt_row>> rows_;
};

/// The rows of one blob, relative to `low`. `code`: its instructions, as far as they could be read.
std::vector<lt_row> rows_of(const CodeBlob& blob, uint64_t low, const std::vector<uint8_t>& code);

}  // namespace looptrace::hotspot
