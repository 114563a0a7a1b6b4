// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

namespace looptrace {

/// Stateless deleter for a C library's free function: unique_ptr<bpf_link, FreeWith<bpf_link__destroy>>.
template <auto Free>
struct FreeWith {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};

}  // namespace looptrace
