// SPDX-License-Identifier: Apache-2.0
// What optimised C++ does to a stack, for as long as it runs: templates, recursion, virtual calls,
// exceptions, realigned and variable frames, libstdc++ and libc below. Not a loop: its stacks are compared
// with libdw's.
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

volatile unsigned long sink;

struct Shape {
  virtual ~Shape() = default;
  virtual double area(int depth) const = 0;
};
struct Square : Shape {
  double area(int depth) const override { return depth ? area(depth - 1) * 1.0001 : 1; }
};
struct Circle : Shape {
  double area(int depth) const override {
    alignas(64) double wide[16];
    for (int i = 0; i < 16; ++i) wide[i] = std::sin(depth + i) * static_cast<double>(sink & 1);
    return depth ? area(depth - 1) + wide[depth & 15] : std::pow(wide[3], 1.5);
  }
};

int throw_below(int n) {
  std::string text(static_cast<size_t>(n) + 20, 'x');
  if (n == 0) throw std::runtime_error(text);
  return throw_below(n - 1) + static_cast<int>(text.size());
}

unsigned long with_alloca(int n) {
  char* room = static_cast<char*>(__builtin_alloca(static_cast<size_t>(n) * 16 + 16));
  std::memset(room, n, static_cast<size_t>(n) * 16 + 16);
  return n ? with_alloca(n - 1) + static_cast<unsigned char>(room[n]) : std::strlen("end");
}

void round_of_work(unsigned seed) {
  std::map<std::string, std::vector<int>> table;
  for (unsigned i = 0; i < 200; ++i)
    table["key" + std::to_string((i * seed) % 37)].push_back(static_cast<int>(i * seed % 101));
  for (auto& [key, values] : table)
    std::sort(values.begin(), values.end(), [&](int a, int b) { return (a ^ 5) < (b ^ 5); });
  const std::array<std::unique_ptr<Shape>, 2> shapes{std::make_unique<Square>(), std::make_unique<Circle>()};
  for (const auto& shape : shapes) sink = sink + static_cast<unsigned long>(shape->area(12));
  try {
    throw_below(8);
  } catch (const std::exception& e) {
    sink = sink + std::strlen(e.what());
  }
  static const std::regex words("([a-z]+)([0-9]*)=(x|y|z)+");
  sink = sink + std::regex_match("abcdef12345=xyzzyxxyz", words);
  sink = sink + with_alloca(20);
  std::function<int(int)> fib = [&](int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); };
  sink = sink + static_cast<unsigned long>(fib(10));
  char text[64];
  std::snprintf(text, sizeof text, "%.17g %s", std::sqrt(seed), table.begin()->first.c_str());
  sink = sink + std::strtoul(text, nullptr, 10);
}

}  // namespace

int main() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  alarm(600);
  dprintf(STDOUT_FILENO, "ready %d\n", getpid());
  for (unsigned seed = 1;; ++seed) round_of_work(seed);
}
