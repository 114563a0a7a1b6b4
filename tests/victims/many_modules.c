// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback sleeps, in a program that has mapped each file of --dir as code.
#include "victim.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>

static NOINLINE void sleep_in_callback(const struct options *o) { STALL("sleep", sleep_ns(ms(o->stall_ms))); }

static void loop(const struct options *o) { run_epoll_loop(o, sleep_in_callback); }

static void map_as_code(const char *name) {
  const int fd = must(open(name, O_RDONLY | O_CLOEXEC), name);
  struct stat st;
  must(fstat(fd, &st), name);
  if (mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED) fail(name);
  close(fd);
}

int main(int argc, char **argv) {
  const struct options o = parse_options(argc, argv, (struct options){.dir = "."});
  must(chdir(o.dir), o.dir);
  DIR *dir = opendir(".");
  if (!dir) fail(o.dir);
  for (const struct dirent *entry; (entry = readdir(dir));) {
    if (entry->d_name[0] != '.') map_as_code(entry->d_name);
  }
  closedir(dir);
  return run_victim(&o, loop);
}
