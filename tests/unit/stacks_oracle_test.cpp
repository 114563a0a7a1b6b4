// SPDX-License-Identifier: Apache-2.0
//
// The row walk against libdwfl's, on the same copy of the same stack and registers: programs that work are
// stopped at random moments by ptrace. Both walks must give the same addresses, and reach the thread's start:
// agreement alone would pass where both give up at the same frame.
//
// LOOPTRACE_ORACLE_STACKS sets how many stacks of each program are taken.
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include "base/free_with.h"
#include "looptrace.h"
#include "stacks/elf_object.h"
#include "stacks/symbolizer.h"
#include "stacks/user_unwinder.h"
#include "unwind_rows.h"

namespace looptrace {
namespace {

constexpr size_t kMaxStack = 4u << 20;
constexpr size_t kMaxFrames = LT_MAX_USER;

// DWARF order: rax rdx rcx rbx rsi rdi rbp rsp r8 .. r15.
std::array<uint64_t, 16> by_dwarf_number(const user_regs_struct& r) {
  return {r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp,
          r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
}

// A moment of a thread: what both walks are given.
struct Moment {
  user_regs_struct registers{};
  uint64_t base = 0;
  std::vector<uint8_t> stack;  // from base up

  bool read(uint64_t address, uint64_t& value) const {
    if (address < base || address - base + sizeof value > stack.size()) return false;
    std::memcpy(&value, stack.data() + (address - base), sizeof value);
    return true;
  }
};

class Child {
 public:
  explicit Child(const std::vector<std::string>& command, bool quiet = true) {
    pid_ = fork();
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (quiet) {
      const int null = open("/dev/null", O_RDWR);
      for (const int fd : {0, 1, 2}) dup2(null, fd);
    }
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, __WALL);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t pid() const { return pid_; }

  bool seize() { return ptrace(PTRACE_SEIZE, pid_, nullptr, nullptr) == 0; }

  // Stops it, copies, lets it go on. False if it has ended.
  bool take(Moment& moment) {
    const bool copied = stop(moment) && copy_stack(moment);
    return resume() && copied;
  }

  bool resume() { return ptrace(PTRACE_CONT, pid_, nullptr, nullptr) == 0; }

  bool stop(Moment& moment) {
    if (ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr) != 0) return false;
    for (;;) {
      int status = 0;
      if (waitpid(pid_, &status, __WALL) != pid_ || !WIFSTOPPED(status)) return false;
      if (status >> 16 == PTRACE_EVENT_STOP) break;
      ptrace(PTRACE_CONT, pid_, nullptr, WSTOPSIG(status));  // a signal of its own came first
    }
    return ptrace(PTRACE_GETREGS, pid_, nullptr, &moment.registers) == 0;
  }

 private:
  bool copy_stack(Moment& moment) {
    if (moment.registers.rsp < low_ || moment.registers.rsp >= high_) {
      std::ifstream maps("/proc/" + std::to_string(pid_) + "/maps");
      for (std::string line; std::getline(maps, line);) {
        unsigned long low = 0, high = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx", &low, &high) != 2) continue;
        if (moment.registers.rsp < low || moment.registers.rsp >= high) continue;
        low_ = low;
        high_ = high;
      }
    }
    if (moment.registers.rsp < low_ || moment.registers.rsp >= high_) return false;
    moment.base = std::max<uint64_t>(moment.registers.rsp - 256, low_) & ~uint64_t{7};
    moment.stack.resize(std::min<uint64_t>(high_ - moment.base, kMaxStack));
    iovec local{moment.stack.data(), moment.stack.size()};
    iovec remote{reinterpret_cast<void*>(moment.base), moment.stack.size()};
    const ssize_t got = process_vm_readv(pid_, &local, 1, &remote, 1, 0);
    if (got <= 0) return false;
    moment.stack.resize(static_cast<size_t>(got));
    return true;
  }

  pid_t pid_ = -1;
  uint64_t low_ = 0, high_ = 0;  // the stack's mapping
};

// libdwfl, fed from a Moment.
class Oracle {
 public:
  explicit Oracle(pid_t pid) : pid_(pid), dwfl_(dwfl_begin(&kFiles)) {
    dwfl_report_begin(dwfl_.get());
    usable_ = dwfl_linux_proc_report(dwfl_.get(), pid) == 0 &&
              dwfl_report_end(dwfl_.get(), nullptr, nullptr) == 0 &&
              dwfl_attach_state(dwfl_.get(), nullptr, pid, &kThreads, this);
  }
  bool usable() const { return usable_; }

  // True if libdwfl says that it reached the end.
  bool walk(const Moment& moment, std::vector<uint64_t>& addresses) {
    moment_ = &moment;
    addresses.clear();
    return dwfl_getthread_frames(dwfl_.get(), pid_, on_frame, &addresses) == 0;
  }

 private:
  static int on_frame(Dwfl_Frame* frame, void* arg) {
    auto& addresses = *static_cast<std::vector<uint64_t>*>(arg);
    Dwarf_Addr pc = 0;
    if (addresses.size() >= kMaxFrames || !dwfl_frame_pc(frame, &pc, nullptr)) return DWARF_CB_ABORT;
    addresses.push_back(pc);
    return DWARF_CB_OK;
  }
  static pid_t next_thread(Dwfl*, void* arg, void** thread) {
    if (*thread) return 0;
    *thread = arg;
    return static_cast<Oracle*>(arg)->pid_;
  }
  static bool get_thread(Dwfl*, pid_t, void* arg, void** thread) {
    *thread = arg;
    return true;
  }
  static bool memory(Dwfl*, Dwarf_Addr address, Dwarf_Word* result, void* arg) {
    uint64_t value = 0;
    if (!static_cast<Oracle*>(arg)->moment_->read(address, value)) return false;
    *result = value;
    return true;
  }
  static bool registers(Dwfl_Thread* thread, void* arg) {
    const Moment& moment = *static_cast<Oracle*>(arg)->moment_;
    std::array<Dwarf_Word, 17> words{};
    const auto general = by_dwarf_number(moment.registers);
    std::copy(general.begin(), general.end(), words.begin());
    words[16] = moment.registers.rip;
    return dwfl_thread_state_registers(thread, 0, words.size(), words.data());
  }

  static const Dwfl_Callbacks kFiles;
  static const Dwfl_Thread_Callbacks kThreads;
  pid_t pid_;
  std::unique_ptr<Dwfl, FreeWith<dwfl_end>> dwfl_;
  const Moment* moment_ = nullptr;
  bool usable_ = false;
};

// .eh_frame is in the program files; separate debug files have .debug_frame, which says the same at the cost
// of time.
int no_debuginfo(Dwfl_Module*, void**, const char*, Dwarf_Addr, const char*, const char*, GElf_Word, char**) {
  return -1;
}
const Dwfl_Callbacks Oracle::kFiles = {dwfl_linux_proc_find_elf, no_debuginfo, nullptr, nullptr};
const Dwfl_Thread_Callbacks Oracle::kThreads = {next_thread, get_thread, memory, registers, nullptr, nullptr};

UnwoundStack walk_rows(const ProcessModules& modules, const Moment& moment, const ReadWord& read) {
  UnwindRegisters registers{moment.registers.rip, moment.registers.rsp, moment.registers.rbp,
                            by_dwarf_number(moment.registers), 0xffff};
  if (static_cast<int64_t>(moment.registers.orig_rax) >= 0)
    registers.known = static_cast<uint16_t>(~LT_SYSCALL_CLOBBERS);
  return unwind(modules, registers, read);
}

UnwoundStack walk_rows(const ProcessModules& modules, const Moment& moment) {
  return walk_rows(modules, moment,
                   [&](uint64_t address, uint64_t& value) { return moment.read(address, value); });
}

struct Verdicts {
  size_t stacks = 0, agree = 0, ended = 0, oracle_ended = 0, frames = 0;
  std::map<uint32_t, size_t> status;
};

size_t stacks_wanted() {
  const char* text = std::getenv("LOOPTRACE_ORACLE_STACKS");
  return text ? std::strtoul(text, nullptr, 10) : 600;
}

// Takes `count` moments of a program that runs already.
void compare(Child& child, size_t count, Verdicts& verdicts) {
  ASSERT_TRUE(child.seize()) << std::strerror(errno);
  ObjectCache cache;
  const auto modules = ProcessModules::load(child.pid(), cache);
  ASSERT_TRUE(modules);
  Oracle oracle(child.pid());
  ASSERT_TRUE(oracle.usable()) << dwfl_errmsg(-1);
  std::mt19937 random(7);
  Moment moment;
  std::vector<uint64_t> expected;
  size_t shown = 0;
  for (size_t i = 0; i < count; ++i) {
    usleep(random() % 300);
    ASSERT_TRUE(child.take(moment)) << "the program ended";
    const UnwoundStack stack = walk_rows(*modules, moment);
    const bool oracle_ended = oracle.walk(moment, expected);
    ++verdicts.stacks;
    ++verdicts.status[stack.status];
    verdicts.frames += stack.addresses.size();
    verdicts.ended += stack.status == LT_UNWIND_END;
    verdicts.oracle_ended += oracle_ended;
    const bool agree = stack.addresses == expected;
    verdicts.agree += agree;
    if ((agree && stack.status == LT_UNWIND_END) || shown++ >= 3) continue;
    const auto differs =
        std::mismatch(stack.addresses.begin(), stack.addresses.end(), expected.begin(), expected.end());
    const auto last = differs.first == stack.addresses.begin() ? differs.first : differs.first - 1;
    const Module* module = modules->find(*last);
    std::printf("  status %u, %zu frames, libdwfl %zu%s, the same up to frame %zd: %s+%#lx (orig_rax %ld)\n",
                stack.status, stack.addresses.size(), expected.size(), oracle_ended ? "" : " and gave up",
                last - stack.addresses.begin(), module ? module->path.c_str() : "?",
                module ? static_cast<unsigned long>(*last - module->bias) : static_cast<unsigned long>(*last),
                static_cast<long>(moment.registers.orig_rax));
  }
}

void expect_agreement(const char* name, const Verdicts& v) {
  std::printf("%s: %zu stacks of %.1f frames; same addresses %zu, reached the start %zu (libdwfl %zu)", name,
              v.stacks, static_cast<double>(v.frames) / static_cast<double>(std::max<size_t>(v.stacks, 1)),
              v.agree, v.ended, v.oracle_ended);
  for (const auto& [status, n] : v.status) std::printf("; status %u: %zu", status, n);
  std::printf("\n");
  EXPECT_GE(static_cast<double>(v.agree), 0.995 * static_cast<double>(v.stacks));
  EXPECT_GE(static_cast<double>(v.ended), 0.995 * static_cast<double>(v.stacks));
}

bool is_installed(const std::string& program) {
  if (program.find('/') != std::string::npos) return access(program.c_str(), X_OK) == 0;
  std::istringstream path(std::string(std::getenv("PATH") ? std::getenv("PATH") : "") + ":/usr/sbin");
  for (std::string directory; std::getline(path, directory, ':');)
    if (access((directory + "/" + program).c_str(), X_OK) == 0) return true;
  return false;
}

class WorkDirectory {
 public:
  WorkDirectory() {
    char name[] = "/tmp/looptrace-oracle.XXXXXX";
    path_ = mkdtemp(name) ? name : "";
  }
  ~WorkDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name) << text;
    return path_ + "/" + name;
  }

 private:
  std::string path_;
};

// Long enough for a program to have loaded what it will load.
void warm_up(int milliseconds = 700) { usleep(static_cast<useconds_t>(milliseconds) * 1000); }

#define NEEDS(program) \
  if (!is_installed(program)) GTEST_SKIP() << program << " is not installed"

TEST(OracleTest, OptimisedCpp) {
  Child child({VICTIM_DIR "/victim_cpp_work"});
  warm_up(200);
  Verdicts verdicts;
  compare(child, stacks_wanted(), verdicts);
  expect_agreement("c++ -O2", verdicts);
}

TEST(OracleTest, PythonInItsExtensions) {
  NEEDS("/usr/bin/python3");
  Child child({"/usr/bin/python3", "-c", R"program(
import bz2, collections, decimal, hashlib, itertools, json, lzma, pickle, random, re, sqlite3, struct, zlib
import ctypes, math, operator, socket, ssl, xml.etree.ElementTree as et
db = sqlite3.connect(":memory:")
db.create_function("twist", 1, lambda x: len(str(x)))
db.execute("create table t (a, b)")
by_value = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(lambda a, b: a[0] - b[0])
qsort = ctypes.CDLL(None).qsort
class Key:
    def __init__(self, v): self.v = v
    def __lt__(self, o): return self.v < o.v
    def __hash__(self): return hash(self.v)
    def __eq__(self, o): return self.v == o.v
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def gen(n):
    for i in range(n):
        yield from (x for x in (i, str(i)))
doc = {"k%d" % i: [random.random(), "text %d" % i, {"deep": list(range(i % 7))}] for i in range(60)}
while True:
    text = json.dumps(doc, indent=2, default=str); json.loads(text, object_hook=lambda d: dict(d))
    data = text.encode()
    zlib.decompress(zlib.compress(data, 6)); bz2.compress(data[:2000]); lzma.compress(data[:800])
    hashlib.sha256(data).hexdigest(); hashlib.pbkdf2_hmac("sha256", b"p", b"s", 300); hashlib.md5(data * 3)
    re.sub(r"(\w+)\s(\d+)", lambda m: m.group(2) + m.group(1), text)
    sorted((Key(random.random()) for _ in range(150)))
    pickle.loads(pickle.dumps(doc)); fib(11); list(gen(60))
    db.executemany("insert into t values (?, ?)", [(i, str(i)) for i in range(40)])
    db.execute("select a, twist(b), count(*) from t group by b order by twist(b)").fetchall(); db.execute("delete from t")
    decimal.Decimal(2).sqrt() ** 7; struct.unpack("<100d", struct.pack("<100d", *range(100)))
    qsort((ctypes.c_int * 60)(*random.sample(range(1000), 60)), 60, 4, by_value)
    collections.Counter(map(Key, range(80))); et.fromstring("<a>" + "<b c='d'>x</b>" * 50 + "</a>")
    list(itertools.accumulate(range(1, 200), operator.mul, initial=1)); math.factorial(300)
)program"});
  warm_up();
  Verdicts verdicts;
  compare(child, stacks_wanted(), verdicts);
  expect_agreement("python3", verdicts);
}

TEST(OracleTest, NodeWithCompiledAndInterpretedCode) {
  NEEDS("node");
  Child child({"node", "-e", R"program(
const zlib = require('zlib'), crypto = require('crypto');
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
const doc = {};
for (let i = 0; i < 80; i++) doc['k' + i] = [i, 'text ' + i, {deep: [i, i + 1]}];
let round = 0;
function work() {
  const text = JSON.stringify(doc);
  JSON.parse(text, (k, v) => v);
  text.replace(/(\w+) (\d+)/g, (m, a, b) => b + a);
  zlib.inflateSync(zlib.deflateSync(text));
  crypto.createHash('sha256').update(text).digest('hex');
  crypto.pbkdf2Sync('p', 's', 50, 32, 'sha512');
  const a = [];
  for (let i = 0; i < 200; i++) a.push({v: (i * 7919) % 211});
  a.sort((x, y) => x.v - y.v);
  new Map(a.map(x => [x.v, x])).forEach((v, k) => k + v.v);
  fib(14);
  eval('(function once' + (round++ % 50) + '(x) { return [1, 2, 3].map(y => y * x); })')(3);
  setImmediate(work);
}
work();
)program"});
  warm_up(1500);
  Verdicts verdicts;
  compare(child, stacks_wanted(), verdicts);
  expect_agreement("node", verdicts);
}

TEST(OracleTest, OpensslsAssembler) {
  NEEDS("openssl");
  Verdicts verdicts;
  const std::vector<std::vector<std::string>> commands = {
      {"speed", "-seconds", "100", "rsa2048"},
      {"speed", "-seconds", "100", "ecdsap256"},
      {"speed", "-seconds", "100", "ecdhp384"},
      {"speed", "-seconds", "100", "-bytes", "4096", "-evp", "aes-256-gcm"},
      {"speed", "-seconds", "100", "-bytes", "4096", "-evp", "chacha20-poly1305"},
      {"speed", "-seconds", "100", "-bytes", "4096", "-evp", "sha512"},
      {"kdf", "-keylen", "32", "-kdfopt", "digest:SHA256", "-kdfopt", "pass:p", "-kdfopt", "salt:s",
       "-kdfopt", "iter:2000000000", "PBKDF2"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.begin(), "openssl");
    Child child(command);
    warm_up(300);
    compare(child, (stacks_wanted() + commands.size() - 1) / commands.size(), verdicts);
  }
  expect_agreement("openssl", verdicts);
}

TEST(OracleTest, RedisUnderLoad) {
  NEEDS("redis-server");
  NEEDS("redis-benchmark");
  const WorkDirectory work;
  const std::string socket = work.path() + "/redis.sock";
  Child server({"redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", work.path()});
  warm_up();
  Child commands({"redis-benchmark", "-s", socket, "-q", "-l", "-P", "8", "-n", "20000", "-t",
                  "set,get,incr,lpush,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"});
  Child scripts(
      {"redis-benchmark", "-s", socket, "-q", "-l", "-n", "100000", "eval",
       "local t = {} for i = 1, 50 do t[i] = redis.call('incr', 'n' .. i) end table.sort(t, function(a, b) "
       "return a > b end) return cjson.encode(t)",
       "0"});
  warm_up();
  Verdicts verdicts;
  compare(server, stacks_wanted(), verdicts);
  expect_agreement("redis", verdicts);
}

TEST(OracleTest, NginxUnderLoad) {
  NEEDS("nginx");
  NEEDS("ab");
  const WorkDirectory work;
  const std::string d = work.path();
  std::string page;
  for (int i = 0; i < 4000; ++i) page += "line " + std::to_string(i * 7919 % 9973) + " of a page\n";
  work.write("page.html", page);
  const std::string config = work.write(
      "nginx.conf", "daemon off; master_process off; user root; pid " + d + "/pid; error_log " + d +
                        "/error.log; events {} http { access_log " + d +
                        "/access.log; client_body_temp_path " + d + "/b; proxy_temp_path " + d +
                        "/p; fastcgi_temp_path " + d + "/f; uwsgi_temp_path " + d + "/u; scgi_temp_path " +
                        d + "/s; gzip on; gzip_types *; server { listen 127.0.0.1:18437; root " + d +
                        "; location ~ ^/re(.*)x { rewrite ^/re(.*)x /page.html last; } } }");
  Child server({"nginx", "-c", config, "-p", d});
  warm_up();
  Child pages({"ab", "-q", "-n", "100000000", "-c", "4", "-H", "Accept-Encoding: gzip",
               "http://127.0.0.1:18437/rewritex"});
  Child errors({"ab", "-q", "-n", "100000000", "-c", "2", "-k", "http://127.0.0.1:18437/nothing"});
  warm_up();
  Verdicts verdicts;
  compare(server, stacks_wanted(), verdicts);
  expect_agreement("nginx", verdicts);
}

// A Go program that works on its main thread. Go's linker leaves the tables of its runtime in a stripped
// program: rows and names come from them. Unstripped it has .debug_frame too, which libdwfl reads.
constexpr const char* kGoProgram = R"program(package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
)

func init() { runtime.LockOSThread() }

//go:noinline
func leafWork(n int) int {
	words := make([]string, 0, n)
	for i := 0; i < n; i++ {
		words = append(words, fmt.Sprint("w", i*7919%n))
	}
	sort.Strings(words)
	return len(strings.Join(words, ","))
}

type worker struct{ total int }

//go:noinline
func (w *worker) middle(n int) { w.total += leafWork(n) }

func main() {
	fmt.Println("ready", os.Getpid())
	w := &worker{}
	for {
		w.middle(3000)
	}
}
)program";

// Builds it with `flags`; empty where that cannot be done.
std::string build_go(const WorkDirectory& work, const std::string& name, const std::string& flags) {
  const std::string source = work.write("work.go", kGoProgram), out = work.path() + "/" + name;
  const std::string command =
      "cd " + work.path() + " && go build " + flags + " -o " + out + " " + source + " 2>/dev/null";
  return std::system(command.c_str()) == 0 ? out : "";
}

// Not against libdwfl, which does not follow Go from one stack to another: against the names that must be
// there.
TEST(OracleTest, GoByItsRuntimesTables) {
  NEEDS("go");
  const WorkDirectory work;
  for (const auto& [name, flags] : {std::pair("full", ""), std::pair("stripped", "-ldflags=-s"),
                                    std::pair("pie", "-buildmode=pie -ldflags=-s")}) {
    const std::string program = build_go(work, name, flags);
    if (program.empty()) GTEST_SKIP() << "go build failed";
    Child child({program});
    warm_up(300);
    ASSERT_TRUE(child.seize());
    ObjectCache cache;
    const auto modules = ProcessModules::load(child.pid(), cache);
    ASSERT_TRUE(modules);
    Symbolizer symbolizer({});
    Moment moment;
    size_t stacks = 0, whole = 0, worked = 0, wrong = 0;
    for (; stacks < stacks_wanted() / 2; ++stacks) {
      usleep(200);
      ASSERT_TRUE(child.stop(moment));
      const UnwoundStack stack = walk_rows(*modules, moment, memory_reader(child.pid()));
      std::string text;
      for (size_t i = 0; i < stack.addresses.size(); ++i) {
        std::vector<Frame> frames;
        symbolizer.user(child.pid(), *modules, stack.addresses[i], i > 0, frames);
        const Frame& f = frames.back();
        text += f.function + ":" + std::to_string(f.line) + (f.guessed ? "?" : "") + " ";
      }
      ASSERT_TRUE(child.resume());
      whole += stack.status == LT_UNWIND_END;
      // In leafWork(), be it in the runtime below it, all its callers must be there.
      static const std::string kChain = "main.(*worker).middle:26 main.main:32 runtime.main:";
      const size_t work_at = text.find("main.leafWork:");
      if (work_at == std::string::npos) continue;
      const size_t chain_at = text.find(kChain);
      const bool right = chain_at != std::string::npos && text.find(' ', work_at) + 1 == chain_at &&
                         text.find(" runtime.goexit") > chain_at && text.find('?') == std::string::npos;
      worked += right;
      if (!right && wrong++ < 3) std::printf("  status %u: %s\n", stack.status, text.c_str());
    }
    std::printf("go %s: %zu stacks, %zu reached the start, %zu in leafWork() with all callers, %zu without\n",
                name, stacks, whole, worked, wrong);
    EXPECT_GE(static_cast<double>(whole), 0.995 * static_cast<double>(stacks));
    EXPECT_GE(worked, stacks / 10);  // the thread also helps the garbage collector, and sleeps
    EXPECT_LE(static_cast<double>(wrong), 0.005 * static_cast<double>(stacks));
  }
}

}  // namespace
}  // namespace looptrace
