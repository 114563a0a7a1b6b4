// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <variant>

namespace looptrace {

/// What class of failure this is; main maps it to the exit code of the contract.
enum class Fault {
  failure,         ///< exit 1: anything else
  usage,           ///< exit 2: the command line is wrong
  no_such_target,  ///< exit 3: nothing matches what was asked for
  unsupported,     ///< exit 4: a privilege or a kernel feature is missing
};

/// Why an operation failed: what was attempted, the errno if there is one, and the mend.
struct Error {
  std::string what;
  int err = 0;  ///< positive errno, 0 if none applies
  Fault fault = Fault::failure;

  std::string message() const { return err ? what + ": " + std::generic_category().message(err) : what; }
};

/// A value or an Error, with the names of std::expected (absent from g++ 12's C++20).
template <typename T = void>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}
  Result(Error e) : v_(std::in_place_index<1>, std::move(e)) {}

  bool has_value() const { return v_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  T& value() { return std::get<0>(v_); }
  const T& value() const { return std::get<0>(v_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const { return std::get<1>(v_); }

 private:
  std::variant<T, Error> v_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error e) : e_(std::move(e)) {}

  bool has_value() const { return !e_; }
  explicit operator bool() const { return has_value(); }
  const Error& error() const { return *e_; }

 private:
  std::optional<Error> e_;
};

}  // namespace looptrace
