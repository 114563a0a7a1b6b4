// SPDX-License-Identifier: Apache-2.0
// A program that embeds CPython: embedded_python LIBPYTHON SCRIPT [ARGUMENTS]...
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  void *library = argc > 2 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : NULL;
  if (!library) {
    fprintf(stderr, "%s\n", argc > 2 ? dlerror() : "usage: embedded_python LIBPYTHON SCRIPT");
    return 77;
  }
  int (*run)(int, char **) = (int (*)(int, char **))dlsym(library, "Py_BytesMain");
  if (!run) {
    fprintf(stderr, "%s\n", dlerror());
    return 77;
  }
  argv[1] = argv[0];
  return run(argc - 1, argv + 1);
}
