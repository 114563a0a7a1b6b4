// SPDX-License-Identifier: Apache-2.0
// LD_PRELOAD: anonymous memory that the program maps is a file's instead (below $FILE_MEMORY_DIRECTORY), so
// that it can be taken away where there is no swap. libc's own malloc is not concerned: it does not call mmap
// by name.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int file_of(size_t length) {
  const char *directory = getenv("FILE_MEMORY_DIRECTORY");
  char path[4096];
  if (!directory) return -1;
  snprintf(path, sizeof path, "%s/file-memory-XXXXXX", directory);
  int fd = mkostemp(path, O_CLOEXEC);
  if (fd < 0) return -1;
  unlink(path);
  if (ftruncate(fd, (off_t)length) == 0) return fd;
  close(fd);
  return -1;
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
  const int plain = MAP_PRIVATE | MAP_ANONYMOUS;
  int file = flags == plain && !address && protection == (PROT_READ | PROT_WRITE) ? file_of(length) : -1;
  if (file < 0) return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
  void *memory = (void *)syscall(SYS_mmap, address, length, protection, MAP_SHARED, file, 0);
  close(file);
  return memory;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
  return mmap64(address, length, protection, flags, fd, offset);
}
