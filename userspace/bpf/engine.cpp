// SPDX-License-Identifier: Apache-2.0
#include "bpf/engine.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "base/fd.h"
#include "base/files.h"
#include "base/free_with.h"
#include "bpf/poll_tracepoints.h"
#include "bpf/row_chunks.h"
#include "looptrace.skel.h"

namespace looptrace {

namespace {

using SkeletonPtr = std::unique_ptr<looptrace_bpf, FreeWith<looptrace_bpf__destroy>>;
using LinkPtr = std::unique_ptr<bpf_link, FreeWith<bpf_link__destroy>>;
using RingBufferPtr = std::unique_ptr<ring_buffer, FreeWith<ring_buffer__free>>;

// A young iteration may spend a capture every 10 ms, an old one every ms (and 32 saved up).
constexpr uint64_t kCaptureCostNs = 10'000'000;
// With few captures: a tenth of them, and a sample in 100 ms of a late loop's CPU time.
constexpr uint64_t kDearCaptureNs = 100'000'000, kWideGapNs = 100'000'000;
// Below this the timer tick (4 ms at 250 Hz) is too coarse to sample a stall.
constexpr uint64_t kTickThresholdNs = 20'000'000;

uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

/// Runs an iterator over the threads of `tgid`, 0 = all, and hands on what it writes: whole records, since
/// the kernel returns as many as fit. Of one process only from 6.1 on.
Result<void> walk_tasks(bpf_program* iterator, uint32_t tgid,
                        const std::function<void(std::span<const std::byte>)>& take) {
  bpf_iter_link_info only{};
  only.task.pid = tgid;
  LIBBPF_OPTS(bpf_iter_attach_opts, options);
  if (tgid) {
    options.link_info = &only;
    options.link_info_len = sizeof only;
  }
  LinkPtr link(bpf_program__attach_iter(iterator, &options));
  if (!link) return Error{"look for threads that sleep in a poll", errno, Fault::unsupported};
  UniqueFd fd(bpf_iter_create(bpf_link__fd(link.get())));
  if (!fd) return Error{"walk the threads of this host", errno, Fault::unsupported};
  std::array<std::byte, 64 * sizeof(lt_waiting)> buffer;
  ssize_t n;
  while ((n = read(fd.get(), buffer.data(), buffer.size())) > 0)
    take(std::span(buffer).first(static_cast<size_t>(n)));
  return {};
}

/// An mmapped array map.
template <typename T>
class SharedArray {
 public:
  SharedArray() = default;
  SharedArray(const SharedArray&) = delete;
  SharedArray& operator=(const SharedArray&) = delete;
  ~SharedArray() {
    if (data_) munmap(data_, bytes_);
  }
  Result<void> map(int fd, uint32_t count) {
    static_assert(sizeof(T) % 8 == 0);
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    bytes_ = (sizeof(T) * count + page - 1) / page * page;
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return Error{"map memory shared with the BPF programs", errno};
    data_ = static_cast<T*>(p);
    count_ = count;
    return {};
  }
  T& operator[](uint32_t i) const { return data_[i]; }
  T* data() const { return data_; }
  uint32_t size() const { return count_; }

 private:
  T* data_ = nullptr;
  size_t bytes_ = 0;
  uint32_t count_ = 0;
};

/// A page of a map that is only read.
struct MappedPage {
  void* page = MAP_FAILED;
  MappedPage() = default;
  MappedPage(const MappedPage&) = delete;
  MappedPage& operator=(const MappedPage&) = delete;
  ~MappedPage() {
    if (page != MAP_FAILED) munmap(page, size());
  }
  static size_t size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
  bool map(int fd, size_t number) {
    page = mmap(nullptr, size(), PROT_READ, MAP_SHARED, fd, static_cast<off_t>(number * size()));
    return page != MAP_FAILED;
  }
};

// libbpf's own words about a failed load, kept for the error message.
thread_local std::string libbpf_words;

int keep_words(enum libbpf_print_level level, const char* format, va_list args) {
  if (level > LIBBPF_WARN) return 0;
  char line[512];
  const int n = vsnprintf(line, sizeof line, format, args);
  if (libbpf_words.size() < 8192)
    libbpf_words.append(line, std::min<size_t>(static_cast<size_t>(std::max(n, 0)), sizeof line - 1));
  return n;
}

/// The line of libbpf's output that says most.
std::string telling_line() {
  size_t from = 0;
  std::string best;
  while (from < libbpf_words.size()) {
    size_t to = libbpf_words.find('\n', from);
    if (to == std::string::npos) to = libbpf_words.size();
    const std::string line = libbpf_words.substr(from, to - from);
    if (line.find("failed") != std::string::npos &&
        (best.empty() || line.find("prog '") != std::string::npos)) {
      best = line;
    }
    from = to + 1;
  }
  return best;
}

/// What the kernel has allocated for a map, by its own account.
uint64_t kernel_bytes(int map) {
  const auto info = read_file("/proc/self/fdinfo/" + std::to_string(map));
  const size_t at = info ? info->find("memlock:") : std::string::npos;
  return at == std::string::npos ? 0 : std::strtoull(info->c_str() + at + 8, nullptr, 10);
}

struct Function {
  bpf_program* program;
  const char* name;
};

// Every poll's entry; a kernel may lack some (epoll_pwait2 came with 5.11).
std::vector<Function> functions_of(const looptrace_bpf* skel) {
  const auto& p = skel->progs;
  return {
      {p.fn_epoll_wait, "__x64_sys_epoll_wait"},
      {p.fn_epoll_pwait, "__x64_sys_epoll_pwait"},
      {p.fn_epoll_pwait2, "__x64_sys_epoll_pwait2"},
      {p.fn_poll, "__x64_sys_poll"},
      {p.fn_ppoll, "__x64_sys_ppoll"},
      {p.fn_select, "__x64_sys_select"},
      {p.fn_pselect6, "__x64_sys_pselect6"},
      {p.fn_io_uring_enter, "__x64_sys_io_uring_enter"},
  };
}

}  // namespace

const char* drop_name(lt_drop reason) {
  switch (reason) {
    case LT_DROP_STALL_RING_FULL:
      return "stall_ring_full";
    case LT_DROP_CAPTURE_RING_FULL:
      return "stack_ring_full";
    case LT_DROP_PROCESS_RING_FULL:
      return "process_event_ring_full";
    case LT_DROP_PATH_RING_FULL:
      return "path_ring_full";
    case LT_DROP_GONE_RING_FULL:
      return "loop_event_ring_full";
    case LT_DROP_LOOPS_FULL:
      return "loops_full";
    case LT_DROP_CAPTURE_BUDGET:
      return "stack_budget";
    case LT_DROP_STORAGE:
      return "task_storage";
    case LT_DROP_HOOK_MISSED:
      return "hook_missed";
    case LT_DROP_SWITCH_HEALED:
      return "switch_healed";
    case LT_NR_DROPS:
      break;
  }
  return "unknown";
}

// Members are destroyed last to first: links before the object they belong to.
struct Engine::Impl {
  EngineOptions options;
  SkeletonPtr skel;
  SharedArray<lt_slot> slots;
  SharedArray<lt_stats> stats;
  SharedArray<uint64_t> pulses;
  RingBufferPtr ring;
  MappedPage ring_consumer, ring_producer;  // positions in bytes
  std::atomic<double> ring_peak{0};
  const OnRecord* on_record = nullptr;
  std::vector<LinkPtr> links;

  bool attached = false;
  bool fentry = false;
  std::vector<LinkPtr> function_links;
  PollTracepoints tracepoints;
  LinkPtr probe_link;
  LinkPtr waker_link;
  UniqueFd stats_switch;  // run times are measured while it is open
  mutable std::mutex hooked_lock;
  uint64_t hooked_total = 0;  // by probes that are over

  std::map<uint32_t, uint64_t> row_bytes;  // by file
  uint64_t all_row_bytes = 0;
  uint64_t fixed_bytes = 0;  // of all other maps

  std::vector<uint32_t> free_files;
  uint32_t next_file = 1;  // 0 = no table
  struct Range {
    uint32_t base, count;
  };
  std::map<uint32_t, Range> process_ranges;
  std::vector<Range> free_ranges;  // sorted by base, neighbours merged

  Result<void> open_and_load(bool with_fentry);
  uint64_t sum_over_programs(__u64 (*figure)(const bpf_prog_info&)) const;
  void begin_anew();
  void see_no_polls();
  Result<void> attach_functions();
  Result<uint32_t> take_range(uint32_t count);
  static Result<UniqueFd> make_row_table(const std::vector<lt_chunk>& chunks);
  void give_range(Range range);

  static int on_ring_record(void* ctx, void* data, size_t size) {
    (*static_cast<Impl*>(ctx)->on_record)(std::span(static_cast<const std::byte*>(data), size));
    return 0;
  }
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<void> Engine::Impl::open_and_load(bool with_fentry) {
  libbpf_words.clear();
  skel.reset(looptrace_bpf__open());
  if (!skel) return Error{"open the BPF object", errno};

  auto* knobs = skel->rodata;
  knobs->own_tgid = static_cast<uint32_t>(getpid());
  knobs->every_process = options.every_process;
  knobs->follow_forks = options.follow_forks;
  knobs->report_processes = options.report_processes;
  knobs->report_renames = options.report_renames;
  knobs->trust_hookless = options.hook == HookPolicy::never;
  knobs->take_stacks = options.stacks;
  skel->bss->capture_cost_ns = kCaptureCostNs;

  const auto& maps = skel->maps;
  for (bpf_map* map : {maps.slots, maps.stats, maps.pulses, maps.free_slots}) {
    bpf_map__set_max_entries(map, options.max_loops);
  }
  bpf_map__set_max_entries(maps.ring, options.ring_bytes);
  // More loops are more processes, with their mappings.
  bpf_map__set_max_entries(maps.processes, std::max(bpf_map__max_entries(maps.processes), options.max_loops));
  bpf_map__set_max_entries(maps.modules, std::max(bpf_map__max_entries(maps.modules), options.max_loops * 4));

  const auto& progs = skel->progs;
  bpf_program__set_autoload(progs.on_cgroup, options.report_cgroups);
  btf* kernel = with_fentry ? btf__load_vmlinux_btf() : nullptr;
  for (const Function& function : functions_of(skel.get())) {
    const bool exists = kernel && btf__find_by_name_kind(kernel, function.name, BTF_KIND_FUNC) > 0;
    bpf_program__set_autoload(function.program, with_fentry && exists);
  }
  const bool holds = !with_fentry && options.hook != HookPolicy::never;
  bpf_program__set_autoload(progs.held_enter, holds);
  bpf_program__set_autoload(progs.canary, holds);
  bpf_program__set_autoload(progs.probe_enter, !with_fentry && options.hook == HookPolicy::automatic);
  btf__free(kernel);
  // The tick is x86's local timer; elsewhere perf's clock samples.
  const bool tick = options.sample_hz == 0 && options.threshold_ns >= kTickThresholdNs;
  bpf_program__set_autoload(progs.on_tick, tick);
  bpf_program__set_autoload(progs.on_clock, !tick);

  if (const int err = looptrace_bpf__load(skel.get())) {
    std::string what = "load the BPF programs";
    if (const std::string line = telling_line(); !line.empty()) what += " (" + line + ")";
    return Error{what, -err, Fault::unsupported};
  }
  return {};
}

Result<void> Engine::Impl::attach_functions() {
  for (const Function& function : functions_of(skel.get())) {
    if (!bpf_program__autoload(function.program)) continue;
    bpf_link* link = bpf_program__attach(function.program);
    if (!link) return Error{"attach to the polls' functions", errno, Fault::unsupported};
    function_links.emplace_back(link);
  }
  return {};
}

Result<std::unique_ptr<Engine>> Engine::load(const EngineOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  libbpf_set_print(keep_words);
  libbpf_set_strict_mode(LIBBPF_STRICT_ALL);

  if (options.try_fentry && options.hook != HookPolicy::never && impl->open_and_load(true)) {
    // Some kernels load fentry programs and refuse to attach them: try now, before anything depends on it.
    impl->fentry = impl->attach_functions().has_value();
    if (!impl->fentry) impl->function_links.clear();
  }
  if (!impl->fentry) {
    if (auto loaded = impl->open_and_load(false); !loaded) return loaded.error();
  }

  const auto& maps = impl->skel->maps;
  if (auto r = impl->slots.map(bpf_map__fd(maps.slots), options.max_loops); !r) return r.error();
  if (auto r = impl->stats.map(bpf_map__fd(maps.stats), options.max_loops); !r) return r.error();
  if (auto r = impl->pulses.map(bpf_map__fd(maps.pulses), options.max_loops); !r) return r.error();
  impl->ring.reset(ring_buffer__new(bpf_map__fd(maps.ring), Impl::on_ring_record, impl.get(), nullptr));
  // A ring's first page holds the consumer's position, its second the producer's.
  if (!impl->ring || !impl->ring_consumer.map(bpf_map__fd(maps.ring), 0) ||
      !impl->ring_producer.map(bpf_map__fd(maps.ring), 1))
    return Error{"read the BPF ring buffer", errno};
  for (uint32_t i = 0; i < options.max_loops; ++i) {
    if (bpf_map_update_elem(bpf_map__fd(maps.free_slots), nullptr, &i, 0)) {
      return Error{"fill the queue of free loop slots", errno};
    }
  }
  impl->free_ranges.push_back({0, bpf_map__max_entries(maps.modules)});
  const bpf_map* map;
  bpf_object__for_each_map(map, impl->skel->obj) impl->fixed_bytes += kernel_bytes(bpf_map__fd(map));
  if (impl->fentry) impl->skel->bss->hook_since = now_ns();
  auto engine = std::unique_ptr<Engine>(new Engine(std::move(impl)));
  engine->set_threshold(options.threshold_ns);
  return engine;
}

void Engine::set_threshold(uint64_t threshold_ns) {
  impl_->skel->bss->threshold_ns = threshold_ns;
  impl_->skel->bss->suspect_ns = std::max<uint64_t>(threshold_ns / 10, 50'000);
}

void Engine::set_captures(Captures captures) {
  auto* bss = impl_->skel->bss;
  bss->capture_cost_ns = captures == Captures::all   ? kCaptureCostNs
                         : captures == Captures::few ? kDearCaptureNs
                                                     : LT_NO_CAPTURES;
  bss->sample_gap_ns = captures == Captures::all ? 0 : kWideGapNs;
}

// No program runs now. The generation stays, and with it whose slot it is.
void Engine::Impl::begin_anew() {
  for (uint32_t i = 0; i < slots.size(); ++i) {
    lt_slot& slot = slots[i];
    if (!(slot.generation & 1)) continue;
    slot.phase = LT_PHASE_LEARNING;
    slot.running = 0;
    slot.unsettled = LT_SETTLED;
    slot.off_reason = LT_OFF_NONE;
    slot.off_capture = 0;
    slot.in_ns = slot.in_hook = slot.hook_left_ns = slot.hook_off_ns = 0;
    slot.sample_ns = 0;
    slot.it.in_poll = 0;
    pulses.data()[i] = 0;
  }
}

// Before hooks are detached: nothing is certain from here on.
void Engine::Impl::see_no_polls() {
  std::lock_guard lock(hooked_lock);
  if (const uint64_t since = skel->bss->hook_since) hooked_total += now_ns() - since;
  skel->bss->hook_since = 0;
  skel->bss->held = 0;
}

bool Engine::attached() const { return impl_->attached; }

void Engine::detach() {
  auto& im = *impl_;
  close();
  im.see_no_polls();
  im.probe_link.reset();
  im.tracepoints.release();
  im.waker_link.reset();
  im.function_links.clear();
  im.links.clear();
  im.attached = false;
}

Result<void> Engine::attach() {
  auto& im = *impl_;
  const auto& progs = im.skel->progs;
  im.begin_anew();
  im.skel->bss->closing = 0;
  if (im.fentry && im.function_links.empty()) {
    if (auto r = im.attach_functions(); !r) return r;
    im.skel->bss->hook_since = now_ns();
  }
  im.attached = true;
  const auto attach_one = [&](bpf_program* program) -> Result<void> {
    bpf_link* link = bpf_program__attach(program);
    if (!link) {
      return Error{std::string("attach the BPF program ") + bpf_program__name(program), errno,
                   Fault::unsupported};
    }
    im.links.emplace_back(link);
    return {};
  };
  for (bpf_program* program :
       {progs.on_exit, progs.on_exec, progs.on_fork, progs.on_rename, progs.on_switch}) {
    if (auto r = attach_one(program); !r) return r;
  }
  if (bpf_program__autoload(progs.on_cgroup)) {
    if (auto r = attach_one(progs.on_cgroup); !r) return r;
  }
  if (bpf_program__autoload(progs.on_tick)) {
    if (auto r = attach_one(progs.on_tick); !r) return r;
  } else {
    perf_event_attr attr{};
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_CPU_CLOCK;
    attr.freq = 1;
    // Prime, so that it does not beat with periodic work; at least four samples a threshold, at most 997 Hz.
    const uint64_t wanted =
        im.options.sample_hz ? im.options.sample_hz : 4'000'000'000 / im.options.threshold_ns;
    attr.sample_freq = im.options.sample_hz ? wanted : std::clamp<uint64_t>(wanted, 99, 997);
    for (int cpu = 0; cpu < libbpf_num_possible_cpus(); ++cpu) {
      UniqueFd fd(static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
      if (!fd && (errno == ENODEV || errno == ENXIO)) continue;  // offline
      if (!fd) return Error{"open the CPU clock for sampling", errno, Fault::unsupported};
      bpf_link* link = bpf_program__attach_perf_event(progs.on_clock, fd.get());
      if (!link) return Error{"attach the sampling program", errno, Fault::unsupported};
      fd.release();  // the link closes it
      im.links.emplace_back(link);
    }
  }
  if (im.options.hook == HookPolicy::always && !im.fentry) {
    if (auto r = im.tracepoints.attach(im.skel->progs.held_enter, im.skel->progs.canary); !r) return r;
    im.skel->bss->held = 1;
    im.skel->bss->hook_since = now_ns();
  }
  return {};
}

void Engine::close() { impl_->skel->bss->closing = 1; }

bool Engine::was_counted(uint32_t index) const {
  return impl_->slots[index].census == impl_->skel->bss->census;
}

Result<void> Engine::find_sleepers(std::span<const Parked> parked) {
  const int told = bpf_map__fd(impl_->skel->maps.parked);
  for (const Parked& p : parked) {
    const lt_parked where{p.sp, p.epoll_fd, 0};
    bpf_map_update_elem(told, &p.tid, &where, BPF_ANY);  // no room: it is found when it polls
  }
  impl_->skel->bss->census++;
  auto found = walk_tasks(impl_->skel->progs.find_sleepers, 0, [](std::span<const std::byte>) {});
  for (const Parked& p : parked) bpf_map_delete_elem(told, &p.tid);
  return found;
}

std::vector<lt_waiting> Engine::waiting_threads(uint32_t tgid) {
  std::vector<lt_waiting> found;
  const auto take = [&](std::span<const std::byte> bytes) {
    const size_t whole = bytes.size() / sizeof(lt_waiting), before = found.size();
    found.resize(before + whole);
    std::memcpy(found.data() + before, bytes.data(), whole * sizeof(lt_waiting));
  };
  if (!walk_tasks(impl_->skel->progs.find_waiting, tgid, take)) found.clear();
  return found;
}

bool Engine::uses_fentry() const { return impl_->fentry; }
bool Engine::hooks_permanent() const { return impl_->fentry || impl_->options.hook == HookPolicy::always; }

Result<void> Engine::start_probe() {
  auto& im = *impl_;
  if (hooks_permanent() || im.options.hook == HookPolicy::never || im.probe_link || holding()) return {};
  im.skel->bss->probe++;
  im.probe_link.reset(bpf_program__attach(im.skel->progs.probe_enter));
  if (!im.probe_link) return Error{"attach to raw_syscalls:sys_enter", errno, Fault::unsupported};
  // Only now: from here on no poll goes unseen.
  im.skel->bss->hook_since = now_ns();
  return {};
}

void Engine::stop_probe() {
  auto& im = *impl_;
  if (!im.probe_link) return;
  if (!holding()) im.see_no_polls();
  im.probe_link.reset();
}

Result<bool> Engine::hold_hooks() {
  auto& im = *impl_;
  if (hooks_permanent() || im.options.hook == HookPolicy::never || holding()) return true;
  if (im.tracepoints.going()) return false;
  if (auto r = im.tracepoints.attach(im.skel->progs.held_enter, im.skel->progs.canary); !r) return r.error();
  // The probe runs before the tracepoints: a poll that this falls into is seen twice, never not at all.
  im.skel->bss->held = 1;
  if (!im.skel->bss->hook_since) im.skel->bss->hook_since = now_ns();
  im.probe_link.reset();
  return true;
}

void Engine::release_hooks() {
  auto& im = *impl_;
  if (hooks_permanent() || !holding()) return;
  im.see_no_polls();
  im.tracepoints.release();
}

bool Engine::probing() const { return impl_->probe_link != nullptr; }
bool Engine::holding() const { return impl_->tracepoints.attached(); }

Result<void> Engine::watch_wakers(bool on) {
  auto& im = *impl_;
  if (!on) {
    im.waker_link.reset();
  } else if (!im.waker_link) {
    im.waker_link.reset(bpf_program__attach(im.skel->progs.on_waking));
    if (!im.waker_link) return Error{"attach to sched_waking", errno, Fault::unsupported};
  }
  return {};
}

uint64_t Engine::hook_since() const { return impl_->skel->bss->hook_since; }

uint64_t Engine::hooked_ns(uint64_t now) const {
  std::lock_guard lock(impl_->hooked_lock);
  const uint64_t since = impl_->skel->bss->hook_since;
  return impl_->hooked_total + (since && now > since ? now - since : 0);
}

int Engine::consume(const OnRecord& on_record) {
  const auto position = [](const void* page) {
    return __atomic_load_n(static_cast<const uint64_t*>(page), __ATOMIC_ACQUIRE);
  };
  const double fill =
      static_cast<double>(position(impl_->ring_producer.page) - position(impl_->ring_consumer.page)) /
      static_cast<double>(impl_->options.ring_bytes);
  if (fill > impl_->ring_peak) impl_->ring_peak = fill;
  impl_->on_record = &on_record;
  return ring_buffer__consume(impl_->ring.get());
}

double Engine::take_ring_peak() { return impl_->ring_peak.exchange(0); }

int Engine::ring_fd() const { return ring_buffer__epoll_fd(impl_->ring.get()); }

uint32_t Engine::slot_count() const { return impl_->slots.size(); }
lt_slot& Engine::slot(uint32_t index) { return impl_->slots[index]; }
const lt_stats& Engine::stats(uint32_t index) const { return impl_->stats[index]; }
std::span<const uint64_t> Engine::pulses() const { return {impl_->pulses.data(), impl_->pulses.size()}; }

void Engine::free_slot(uint32_t index) {
  auto& im = *impl_;
  lt_slot& slot = im.slots[index];
  const uint64_t generation = slot.generation;
  std::memset(static_cast<void*>(&slot), 0, sizeof slot);
  std::memset(static_cast<void*>(&im.stats[index]), 0, sizeof(lt_stats));
  slot.generation = generation;
  bpf_map_update_elem(bpf_map__fd(im.skel->maps.free_slots), nullptr, &index, 0);
}

Result<void> Engine::add_target(uint32_t tgid) {
  const uint32_t yes = 1;
  if (bpf_map_update_elem(bpf_map__fd(impl_->skel->maps.targets), &tgid, &yes, BPF_ANY)) {
    return Error{"add process " + std::to_string(tgid) + " to the targets", errno};
  }
  return {};
}

void Engine::remove_target(uint32_t tgid) {
  bpf_map_delete_elem(bpf_map__fd(impl_->skel->maps.targets), &tgid);
}

bool Engine::is_target(uint32_t tgid) const {
  uint32_t value;
  return bpf_map_lookup_elem(bpf_map__fd(impl_->skel->maps.targets), &tgid, &value) == 0;
}

Result<UniqueFd> Engine::Impl::make_row_table(const std::vector<lt_chunk>& chunks) {
  const auto count = static_cast<uint32_t>(chunks.size());
  LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_INNER_MAP);
  UniqueFd table(bpf_map_create(BPF_MAP_TYPE_ARRAY, "lt_rows", 4, sizeof(lt_chunk), count, &opts));
  if (!table) return Error{"create an unwind table", errno};
  for (uint32_t i = 0; i < count; ++i)
    if (bpf_map_update_elem(table.get(), &i, &chunks[i], 0)) return Error{"fill an unwind table", errno};
  return table;
}

Result<std::vector<lt_row_table>> Engine::add_rows(std::span<const std::vector<lt_row>* const> files) {
  auto& im = *impl_;
  std::vector<lt_row_table> made;
  std::vector<uint32_t> keys;
  std::vector<UniqueFd> tables;
  std::vector<int> values;
  const auto give_back = [&](Error error) {
    for (const uint32_t file : keys) im.all_row_bytes -= std::exchange(im.row_bytes[file], 0);
    im.free_files.insert(im.free_files.end(), keys.begin(), keys.end());
    return error;
  };
  for (const std::vector<lt_row>* rows : files) {
    made.emplace_back();
    if (rows->empty()) continue;
    const RowChunks chunks = make_row_chunks(*rows);
    const uint64_t bytes = chunks.chunks.size() * sizeof(lt_chunk);
    if (im.all_row_bytes + bytes > im.options.row_bytes) continue;
    if (!im.free_files.empty()) {
      keys.push_back(im.free_files.back());
      im.free_files.pop_back();
    } else if (im.next_file < bpf_map__max_entries(im.skel->maps.row_tables)) {
      keys.push_back(im.next_file++);
    } else {
      continue;  // full
    }
    made.back() = chunks.table;
    made.back().file = keys.back();
    auto table = im.make_row_table(chunks.chunks);
    if (!table) return give_back(table.error());
    tables.push_back(std::move(*table));
    values.push_back(tables.back().get());
    im.row_bytes[keys.back()] = bytes;
    im.all_row_bytes += bytes;
  }
  uint32_t count = static_cast<uint32_t>(keys.size());
  if (!count) return made;
  const int map = bpf_map__fd(im.skel->maps.row_tables);
  if (bpf_map_update_batch(map, keys.data(), values.data(), &count, nullptr) == 0) return made;
  for (size_t i = 0; i < keys.size(); ++i) {  // a kernel without batches for this kind of map
    if (bpf_map_update_elem(map, &keys[i], &values[i], 0))
      return give_back(Error{"hand an unwind table to the BPF programs", errno});
  }
  return made;
}

void Engine::remove_rows(uint32_t file) {
  if (!file) return;
  bpf_map_delete_elem(bpf_map__fd(impl_->skel->maps.row_tables), &file);
  impl_->all_row_bytes -= std::exchange(impl_->row_bytes[file], 0);
  impl_->free_files.push_back(file);
}

uint64_t Engine::map_bytes() const { return impl_->fixed_bytes + impl_->all_row_bytes; }

uint64_t Engine::mapped_bytes() const {
  const uint64_t of_slots =
      impl_->options.max_loops * (sizeof(lt_slot) + sizeof(lt_stats) + sizeof(uint64_t));
  return of_slots + 2 * uint64_t{impl_->options.ring_bytes};
}

uint64_t Engine::Impl::sum_over_programs(__u64 (*figure)(const bpf_prog_info&)) const {
  uint64_t sum = 0;
  bpf_program* program;
  bpf_object__for_each_program(program, skel->obj) {
    const int fd = bpf_program__fd(program);
    bpf_prog_info info{};
    __u32 size = sizeof info;
    if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0) sum += figure(info);
  }
  return sum;
}

Result<uint32_t> Engine::Impl::take_range(uint32_t count) {
  for (auto it = free_ranges.begin(); it != free_ranges.end(); ++it) {
    if (it->count < count) continue;
    const uint32_t base = it->base;
    it->base += count;
    it->count -= count;
    if (!it->count) free_ranges.erase(it);
    return base;
  }
  return Error{"keep the mappings of one more process", ENOSPC};
}

void Engine::Impl::give_range(Range range) {
  if (!range.count) return;
  auto it = std::lower_bound(free_ranges.begin(), free_ranges.end(), range,
                             [](const Range& a, const Range& b) { return a.base < b.base; });
  it = free_ranges.insert(it, range);
  if (auto next = it + 1; next != free_ranges.end() && it->base + it->count == next->base) {
    it->count += next->count;
    free_ranges.erase(next);
  }
  if (it != free_ranges.begin()) {
    auto prev = it - 1;
    if (prev->base + prev->count == it->base) {
      prev->count += it->count;
      free_ranges.erase(it);
    }
  }
}

Result<void> Engine::set_process(uint32_t tgid, const std::vector<lt_module>& modules, lt_process process) {
  auto& im = *impl_;
  const uint32_t count = static_cast<uint32_t>(std::min<size_t>(modules.size(), LT_MAX_MODULES));
  auto base = im.take_range(std::max<uint32_t>(count, 1));
  if (!base) return base.error();
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t at = *base + i;
    if (bpf_map_update_elem(bpf_map__fd(im.skel->maps.modules), &at, &modules[i], 0)) {
      const Error error{"hand mappings to the BPF programs", errno};
      im.give_range({*base, std::max<uint32_t>(count, 1)});
      return error;
    }
  }
  process.module_base = *base;
  process.nmodules = count;
  if (bpf_map_update_elem(bpf_map__fd(im.skel->maps.processes), &tgid, &process, BPF_ANY)) {
    im.give_range({*base, std::max<uint32_t>(count, 1)});
    return Error{"hand a process to the BPF programs", errno};
  }
  if (auto old = im.process_ranges.find(tgid); old != im.process_ranges.end()) im.give_range(old->second);
  im.process_ranges[tgid] = {*base, std::max<uint32_t>(count, 1)};
  return {};
}

void Engine::set_interpreter(uint32_t tgid, const lt_py_config& python) {
  const int map = bpf_map__fd(impl_->skel->maps.processes);
  lt_process process{};
  if (bpf_map_lookup_elem(map, &tgid, &process)) return;
  process.py = python;
  bpf_map_update_elem(map, &tgid, &process, BPF_EXIST);
}

void Engine::clear_process(uint32_t tgid) {
  auto& im = *impl_;
  bpf_map_delete_elem(bpf_map__fd(im.skel->maps.processes), &tgid);
  if (auto it = im.process_ranges.find(tgid); it != im.process_ranges.end()) {
    im.give_range(it->second);
    im.process_ranges.erase(it);
  }
}

std::array<uint64_t, LT_NR_DROPS> Engine::drops() const {
  std::array<uint64_t, LT_NR_DROPS> sums{};
  for (uint32_t reason = 0; reason < LT_NR_DROPS; ++reason) {
    sums[reason] = __atomic_load_n(&impl_->skel->bss->drops[reason], __ATOMIC_RELAXED);
  }
  return sums;
}

uint64_t Engine::hooks_missed() const {
  return impl_->sum_over_programs([](const bpf_prog_info& info) { return info.recursion_misses; });
}

bool Engine::measure_run_time(bool on) {
  if (!on) {
    impl_->stats_switch.reset();
  } else if (!impl_->stats_switch) {
    impl_->stats_switch = UniqueFd(bpf_enable_stats(BPF_STATS_RUN_TIME));
  }
  return !on || impl_->stats_switch;
}

uint64_t Engine::run_time_ns() const {
  return impl_->sum_over_programs([](const bpf_prog_info& info) { return info.run_time_ns; });
}

}  // namespace looptrace
