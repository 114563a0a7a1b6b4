// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback faults pages in. --flavour file (default): a cold file mapping in --dir,
// touched page by page for --stall-ms; how much of that blocks is up to the disk. --flavour uffd: one page,
// which the thread "pager" delivers through userfaultfd after exactly --stall-ms. --flavour swap: pages that
// the thread "pager" has sent to the swap space since the last stall; there has to be one.
#include "victim.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { FILE_SIZE = 64 << 20, PAGE = 4096 };
static volatile char *memory;
static int file = -1;

static NOINLINE void touch_pages(uint64_t end) {
  for (size_t at = 0; now_ns() < end; at = (at + 67 * PAGE) % FILE_SIZE) (void)memory[at];
}

static NOINLINE void touch_one_page(void) { (void)*memory; }

static NOINLINE void fault_on_file(const struct options *o) {
  madvise((void *)memory, FILE_SIZE, MADV_DONTNEED);
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  STALL("page_fault", touch_pages(now_ns() + ms(o->stall_ms)));
}

static atomic_bool in_stall;

static NOINLINE void fault_on_swap(const struct options *o) {
  const uint64_t end = now_ns() + ms(o->stall_ms);
  size_t at = 0;
  atomic_store(&in_stall, true);
  STALL("page_fault", for (; now_ns() < end; at = (at + 67 * PAGE) % FILE_SIZE)(void) memory[at]);
  atomic_store(&in_stall, false);
}

static void *page_out(void *arg) {
  (void)arg;
  for (;; sleep_ns(ms(30))) {
    if (!atomic_load(&in_stall)) madvise((void *)memory, FILE_SIZE, MADV_PAGEOUT);
  }
  return 0;
}

static void map_swapped(void) {
  memory = mmap(0, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  for (int at = 0; at < FILE_SIZE; at += (int)sizeof(at)) *(volatile int *)(memory + at) = at;
  start_thread(page_out, 0, "pager");
}

static NOINLINE void fault_on_pager(const struct options *o) {
  (void)o;
  madvise((void *)memory, PAGE, MADV_DONTNEED);
  STALL("page_fault", touch_one_page());
}

static void map_file(const struct options *o) {
  static char data[1 << 20];
  memset(data, 1, sizeof(data));
  file = must(open(o->dir, O_TMPFILE | O_RDWR, 0600), "open a file in --dir");
  for (int i = 0; i < FILE_SIZE / (int)sizeof(data); i++) must((int)write(file, data, sizeof(data)), "write");
  must(fsync(file), "fsync");
  memory = mmap(0, FILE_SIZE, PROT_READ, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) fail("mmap");
  madvise((void *)memory, FILE_SIZE, MADV_RANDOM);  // no read-ahead
}

struct pager {
  int fd;
  uint64_t delay_ns;
};

static void *deliver_pages(void *arg) {
  static char page[PAGE] __attribute__((aligned(PAGE)));
  const struct pager *p = arg;
  struct uffd_msg fault;
  while (read(p->fd, &fault, sizeof(fault)) == sizeof(fault)) {
    sleep_ns(p->delay_ns);
    struct uffdio_copy copy = {
        .dst = fault.arg.pagefault.address & ~(uint64_t)(PAGE - 1), .src = (uintptr_t)page, .len = PAGE};
    must(ioctl(p->fd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
  }
  return 0;
}

static void map_paged(const struct options *o) {
  static struct pager p;
  memory = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  p.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  p.delay_ns = ms(o->stall_ms);
  struct uffdio_api api = {.api = UFFD_API};
  struct uffdio_register range = {.range = {(uintptr_t)memory, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (p.fd < 0 || ioctl(p.fd, UFFDIO_API, &api) || ioctl(p.fd, UFFDIO_REGISTER, &range)) skip("userfaultfd");
  start_thread(deliver_pages, &p, "pager");
}

static void loop(const struct options *o) {
  if (flavour_is(o, "uffd")) {
    map_paged(o);
    run_epoll_loop(o, fault_on_pager);
  } else if (flavour_is(o, "swap")) {
    map_swapped();
    run_epoll_loop(o, fault_on_swap);
  } else {
    map_file(o);
    run_epoll_loop(o, fault_on_file);
  }
}

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){0});
  o.threads = 1;
  return run_victim(&o, loop);
}
