// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <zlib.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace looptrace {

class ElfFile;

/// A section that is compressed with zlib, read from any place in it. Deflate can only be unpacked from its
/// beginning; so the state of the unpacking is kept now and then (40 KB each), to go on from there.
class PackedSection {
 public:
  /// `size` bytes once unpacked, of the `packed_size` bytes at `packed_at` in `file`, which must outlive it.
  PackedSection(const ElfFile& file, uint64_t packed_at, uint64_t packed_size, uint64_t size);

  /// Unpacks the bytes from `from` up to `to` to `into`. False if the file has them not.
  bool read(uint64_t from, uint64_t to, uint8_t* into);

  size_t bytes() const;

 private:
  struct EndInflate {
    void operator()(z_stream* stream) const {
      inflateEnd(stream);
      delete stream;
    }
  };
  // zlib's pointer to what was not read yet is set where it goes on.
  struct State {
    std::unique_ptr<z_stream, EndInflate> stream;  // zlib wants it not to move
    uint64_t at = 0;                               // that comes next, unpacked
    uint64_t packed_at = 0;
  };
  static State copy(const State& from);
  bool begin();
  bool inflate_some(State& state, uint8_t* into, uint64_t size);

  const ElfFile& file_;
  uint64_t packed_at_, packed_end_, size_, spacing_;
  std::vector<State> kept_;  // by `at`; the first is the beginning
  State last_;               // where the last read() has ended
};

}  // namespace looptrace
