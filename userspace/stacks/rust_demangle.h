// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace looptrace {

/// Rust's legacy mangling, "_ZN4core3fmt5write17h0123456789abcdefE": an Itanium name whose last part is a
/// hash, which is dropped. Nothing if `mangled` is not one.
std::optional<std::string> demangle_rust_legacy(std::string_view mangled);

/// Rust's v0 mangling (RFC 2603), "_RNvC...": crate hashes and lifetimes are dropped. Nothing if it does not
/// parse; recursion, work and output are bounded, since back references can blow up.
std::optional<std::string> demangle_rust_v0(std::string_view mangled);

}  // namespace looptrace
