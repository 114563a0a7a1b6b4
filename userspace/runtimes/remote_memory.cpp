// SPDX-License-Identifier: Apache-2.0
#include "runtimes/remote_memory.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>

namespace looptrace {
namespace {

constexpr uint64_t kPage = 4096;
constexpr size_t kPages = 257;
constexpr size_t kMaxRead = (kPages - 1) * kPage;

}  // namespace

size_t RemoteMemory::read_some(uint64_t address, void* into, size_t size) const {
  size = std::min(size, kMaxRead);
  if (size == 0 || address < kPage || address + size < address) return 0;

  // A transfer stops between two elements, never inside one: one element a page.
  std::array<iovec, kPages> pages;
  size_t npages = 0;
  for (size_t done = 0; done < size;) {
    const uint64_t at = address + done;
    const size_t part = std::min<uint64_t>(size - done, kPage - at % kPage);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
    pages[npages++] = {reinterpret_cast<void*>(at), part};
    done += part;
  }
  const iovec local = {into, size};
  const ssize_t n = ::process_vm_readv(pid_, &local, 1, pages.data(), npages, 0);
  return n < 0 ? 0 : static_cast<size_t>(n);
}

}  // namespace looptrace
