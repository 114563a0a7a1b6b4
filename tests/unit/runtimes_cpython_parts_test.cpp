// SPDX-License-Identifier: Apache-2.0
// The parts that need no interpreter: versions, debug offsets, file names, strings, memory.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "runtimes/cpython/asyncio_offsets.h"
#include "runtimes/cpython/code_cache.h"
#include "runtimes/cpython/debug_offsets.h"
#include "runtimes/cpython/py_string.h"
#include "runtimes/cpython/source_file.h"
#include "runtimes/cpython/version.h"
#include "runtimes/remote_memory.h"

namespace looptrace::cpython {
namespace {

TEST(Version, FromHex) {
  EXPECT_EQ(Version::from_hex(0x030b02f0).text(), "3.11.2");
  EXPECT_EQ(Version::from_hex(0x030e00c1).text(), "3.14.0rc1");
  EXPECT_FALSE(Version::from_hex(0x030e00c1).is_prerelease());
  EXPECT_EQ(Version::from_hex(0x030f00a7).text(), "3.15.0a7");
  EXPECT_TRUE(Version::from_hex(0x030f00b1).is_prerelease());
}

TEST(Version, FromTextAndFileName) {
  EXPECT_EQ(Version::from_text("3.9.18 (main, ")->text(), "3.9.18");
  EXPECT_EQ(Version::from_text("3.10.0b2+ (")->text(), "3.10.0b2");
  EXPECT_FALSE(Version::from_text("3.9"));
  EXPECT_FALSE(Version::from_text("300.9.1"));
  EXPECT_FALSE(Version::from_text("99999999999999999999.1.1"));
  EXPECT_FALSE(Version::from_text(""));
  EXPECT_EQ(Version::from_file_name("python3.9")->text(), "3.9");
  EXPECT_EQ(Version::from_file_name("libpython3.6m.so.1.0")->text(), "3.6");
  EXPECT_EQ(Version::from_file_name("python2.7")->text(), "2.7");
  EXPECT_FALSE(Version::from_file_name("python3"));
  EXPECT_FALSE(Version::from_file_name("libpq.so.5"));
}

// The words of a 3.13 build's debug offsets, up to the members that are read.
std::vector<uint64_t> words_3_13() {
  uint64_t cookie = 0;
  std::memcpy(&cookie, "xdebugpy", 8);
  return {cookie, 0x030d00f0, 0,                                                        //
          283320, 608,        632,                                                      // runtime
          225000, 7272,       7264, 7344, 8000, 9000, 9100, 9200, 16,  30,  0,  0,  0,  // interpreter
          584,    0,          8,    16,   72,   152,  160,  240,  36,                   // thread
          88,     8,          0,    56,   72,   70,                                     // frame
          208,    112,        120,  128,  136,  68,   52,   96,   104, 200,             // code
          16,     8,                                                                    // object
          416,    24,         88,   168,  32,   24,   16,   40,   24,  16,  48, 32, 40,
          24,     16,         32,   16,   24,  // type .. long
          40,     16,         32,              // bytes
          64,     32,         16,   40};       // str
}

Result<Offsets> decode(const std::vector<uint64_t>& words) {
  return decode_debug_offsets({reinterpret_cast<const uint8_t*>(words.data()), 8 * words.size()});
}

TEST(DebugOffsets, Reads313) {
  const auto o = decode(words_3_13());
  ASSERT_TRUE(o) << o.error().what;
  EXPECT_EQ(o->minor, 13);
  EXPECT_FALSE(o->free_threaded);
  EXPECT_EQ(o->runtime.interpreters_head, 632);
  EXPECT_EQ(o->interpreter.next, 7264);
  EXPECT_EQ(o->interpreter.threads_head, 7344);
  EXPECT_EQ(o->interpreter.gil, 16);
  EXPECT_EQ(o->thread.frame, 72);
  EXPECT_EQ(o->thread.native_thread_id, 160);
  EXPECT_EQ(o->frame.owner, 70);
  EXPECT_EQ(o->frame.size, 71);
  EXPECT_EQ(o->code.name, 128);
  EXPECT_EQ(o->code.bytecode, 200);
  EXPECT_EQ(o->code.flags, 48);
  EXPECT_EQ(o->frame.locals, 72);
  EXPECT_EQ(o->task.coro, 120);
  EXPECT_EQ(o->task.name, 128);
  EXPECT_EQ(o->bytes.data, 32);
  EXPECT_EQ(o->unicode.ascii_data, 40);
  EXPECT_EQ(o->unicode.compact_data, 56);
}

TEST(DebugOffsets, RefusesWhatItDoesNotKnow) {
  auto words = words_3_13();
  words[0] = 0;
  EXPECT_FALSE(decode(words)) << "no cookie";
  words = words_3_13();
  words[1] = 0x031000f0;
  EXPECT_FALSE(decode(words)) << "3.16";
  words[1] = 0x030d00a1;
  EXPECT_FALSE(decode(words)) << "an alpha";
  words = words_3_13();
  words[33] = 1000;
  EXPECT_FALSE(decode(words)) << "a member outside its structure";
  words = words_3_13();
  words.resize(40);
  EXPECT_FALSE(decode(words)) << "cut short";
  EXPECT_FALSE(decode({}));
}

TEST(DebugOffsets, AFreeThreadedBuildHasALargerHead) {
  auto words = words_3_13();
  words[2] = 1;
  words[44] = 32;
  words[45] = 24;  // ob_type
  const auto o = decode(words);
  ASSERT_TRUE(o) << o.error().what;
  EXPECT_TRUE(o->free_threaded);
  EXPECT_EQ(o->gil_size, 216) << "`enabled` comes before it";
  EXPECT_EQ(o->task.coro, 136);
  EXPECT_EQ(o->task.name, 144);
  EXPECT_EQ(o->task.coro_code, 88);
  EXPECT_EQ(o->code.copies, -1) << "from 3.14 on";
}

// The words of a 3.14 without a GIL.
std::vector<uint64_t> words_3_14t() {
  uint64_t cookie = 0;
  std::memcpy(&cookie, "xdebugpy", 8);
  return {cookie, 0x030e00f0, 1,    //
          361664, 784,        808,  // runtime
          246528, 7280,       7272, 7344, 7360,  7408, 7712, 7696, 7704, 16,  7808,
          0,      7832,       7824, 8024, 17628,                                    //
          824,    0,          8,    16,   72,    152,  160,  232,  32,              // thread
          88,     8,          0,    56,   80,    78,   64,   72,                    // frame
          240,    128,        136,  144,  152,   84,   68,   112,  120,  232, 224,  // code
          32,     24,                                                               // object
          432,    40,         104,  184,  56,    48,   32,   56,   40,   32,  216,
          40,     56,         48,   64,   48,    56,   40,   32,   48,   32,  40,  //
          56,     32,         48,                                                  // bytes
          80,     48,         32,   56,                                            // str
          288,    192,        176,  40,   88,    83};                              // gc, generator
}

TEST(DebugOffsets, From314OnAFreeThreadedBuildCopiesCode) {
  auto words = words_3_14t();
  const auto o = decode(words);
  ASSERT_TRUE(o) << o.error().what;
  EXPECT_EQ(o->code.copies, 224);
  EXPECT_EQ(o->code.bytecode, 232);
  EXPECT_EQ(o->frame.owner, 78);
  EXPECT_EQ(o->frame.size, 79);
  EXPECT_EQ(o->unicode.kind_shift, 8);
  words[2] = 0;
  EXPECT_EQ(decode(words)->code.copies, -1) << "with a GIL there is one";
}

// What is read into a buffer must lie in it, whatever the process says of itself.
TEST(DebugOffsets, OffsetsStayInsideTheBuffers) {
  std::mt19937_64 random(42);
  int sound = 0;
  for (int i = 0; i < 200000; ++i) {
    auto words = words_3_13();
    for (int n = 0; n < 2; ++n) words[3 + random() % (words.size() - 3)] = random() % 4096;
    const auto o = decode(words);
    if (!o) continue;
    ++sound;
    ASSERT_LE(o->code.flags + 4, o->code.size);
    ASSERT_LE(o->code.size, 512);
    ASSERT_LE(o->bytes.size + 8, 72);
    ASSERT_LE(o->frame.size, 256);
  }
  EXPECT_GT(sound, 100);
}

TEST(DebugOffsets, AnyWordsAreAccepted) {
  std::mt19937_64 random(23);
  for (int i = 0; i < 2000; ++i) {
    auto words = words_3_13();
    words[1] = 0x030d00f0 + ((random() % 4) << 16);
    for (int n = 0; n < 5; ++n) words[2 + random() % (words.size() - 2)] = random() >> random() % 64;
    (void)decode(words);
  }
}

// What Debian's python3.14 has in its section.
std::array<uint64_t, 13> asyncio_3_14() {
  return {168, 136, 96, 108, 109, 128, 152, 225864, 10880, 936, 864, 872, 880};
}

std::optional<AsyncioOffsets> decode_asyncio(const std::array<uint64_t, 13>& words, size_t bytes = 104) {
  return decode_asyncio_offsets({reinterpret_cast<const char*>(words.data()), bytes});
}

TEST(AsyncioOffsets, Reads314) {
  const auto o = decode_asyncio(asyncio_3_14());
  ASSERT_TRUE(o);
  EXPECT_EQ(o->coro, 128);
  EXPECT_EQ(o->name, 136);
  EXPECT_EQ(o->running_task, 872);
}

TEST(AsyncioOffsets, RefusesWhatItDoesNotKnow) {
  EXPECT_FALSE(decode_asyncio(asyncio_3_14(), 96)) << "a word less";
  EXPECT_FALSE(decode_asyncio_offsets({}));
  for (const size_t word : {1, 5, 11}) {
    for (const uint64_t wrong : {uint64_t{8}, uint64_t{131}, uint64_t{65536}, ~uint64_t{7}}) {
      auto words = asyncio_3_14();
      words[word] = wrong;
      EXPECT_FALSE(decode_asyncio(words)) << "word " << word << " = " << wrong;
    }
  }
}

TEST(SourceFile, OriginAndModule) {
  const auto expect = [](const char* file, FrameOrigin origin, const char* module) {
    const SourceFile source = classify_source(file);
    EXPECT_EQ(source.file, file);
    EXPECT_EQ(source.origin, origin) << file;
    EXPECT_EQ(source.module, module) << file;
  };
  using enum FrameOrigin;
  expect("/srv/app.py", application, "app");
  expect("app.py", application, "app");
  expect("/srv/shop/__init__.py", application, "shop");
  expect("/srv/shop/__main__.py", application, "shop.__main__");
  expect("shop/__main__.py", application, "shop.__main__");
  expect("__main__.py", application, "__main__");
  expect("/usr/bin/gunicorn", application, "gunicorn");
  expect("<string>", application, "<string>");
  expect("", application, "");
  expect("/", application, "");
  expect("/usr/lib/python3.11/asyncio/events.py", runtime, "asyncio.events");
  expect("/usr/lib/python3.11/json/__init__.py", runtime, "json");
  expect("/opt/v/lib/python3.13t/threading.py", runtime, "threading");
  expect("/opt/lib64/python3.9/ssl.py", runtime, "ssl");
  expect("/usr/lib/python312.zip/os.py", runtime, "os");
  expect("<frozen importlib._bootstrap>", runtime, "importlib._bootstrap");
  expect("/v/lib/python3.11/site-packages/tornado/web.py", library, "tornado.web");
  expect("/v/lib/python3.11/site-packages/six.py", library, "six");
  expect("/usr/lib/python3/dist-packages/yaml/__init__.py", library, "yaml");
  expect("/home/me/python3.11/app.py", application, "app");
  expect("/home/me/lib/python3x/app.py", application, "app");
  expect("/home/me/lib/python3.", application, "python3.");
}

// A str object as CPython lays it out, in our own memory.
template <typename Char>
std::vector<uint8_t> str_object(const Offsets& o, const std::vector<Char>& text, bool ascii,
                                bool compact = true) {
  const auto data = static_cast<size_t>(ascii ? o.unicode.ascii_data : o.unicode.compact_data);
  std::vector<uint8_t> object(data + sizeof(Char) * text.size());
  const uint64_t length = text.size();
  const uint32_t state =
      0xabcdef00u | (sizeof(Char) << 2 | (compact ? 1u : 0u) << 5 | (ascii ? 1u : 0u) << 6) | 1u;
  std::memcpy(&object[o.unicode.length], &length, 8);
  std::memcpy(&object[o.unicode.state], &state, 4);
  if (!text.empty()) std::memcpy(&object[data], text.data(), sizeof(Char) * text.size());
  return object;
}

std::optional<std::string> read_back(const Offsets& o, const std::vector<uint8_t>& object) {
  return read_string(RemoteMemory(getpid()), o, reinterpret_cast<uint64_t>(object.data()));
}

TEST(PyString, EveryKindAsUtf8) {
  for (const int minor : {8, 11, 12}) {
    const Offsets o = *offsets_of(minor);
    EXPECT_EQ(read_back(o, str_object<uint8_t>(o, {'r', 'u', 'n'}, true)), "run");
    EXPECT_EQ(read_back(o, str_object<uint8_t>(o, {}, true)), "");
    EXPECT_EQ(read_back(o, str_object<uint8_t>(o, {'n', 'a', 0xef}, false)), "naï");
    EXPECT_EQ(read_back(o, str_object<uint16_t>(o, {0x416, 0x65e5, 'x'}, false)), "Ж日x");
    EXPECT_EQ(read_back(o, str_object<uint32_t>(o, {0x2000b, 'y', 0x1f40d}, false)), "𠀋y🐍");
    EXPECT_EQ(read_back(o, str_object<uint16_t>(o, {0xdcff, 'z'}, false)), "\ufffdz") << "lone surrogate";
    EXPECT_EQ(read_back(o, str_object<uint32_t>(o, {0x7fffffff}, false)), "\ufffd") << "no code point";
  }
}

TEST(PyString, IsBounded) {
  const Offsets o = *offsets_of(12);
  EXPECT_EQ(read_back(o, str_object(o, std::vector<uint8_t>(600, 'a'), true)), std::string(600, 'a'));
  EXPECT_EQ(read_back(o, str_object(o, std::vector<uint8_t>(5000, 'a'), true)), std::string(1024, 'a') + "…");
  EXPECT_EQ(read_back(o, str_object(o, std::vector<uint32_t>(5000, 'a'), false)),
            std::string(256, 'a') + "…");
  EXPECT_EQ(read_back(o, str_object(o, std::vector<uint8_t>(1024, 'a'), true)), std::string(1024, 'a'));
  const auto longer = str_object(o, std::vector<uint8_t>(200, 'a'), true);
  const auto held = static_cast<size_t>(o.unicode.ascii_data) + 9;
  EXPECT_EQ(decode_string(o, {longer.data(), held}), std::string(9, 'a') + "…");
}

TEST(PyString, RefusesGarbage) {
  const Offsets o = *offsets_of(12);
  EXPECT_FALSE(read_back(o, str_object<uint8_t>(o, {'a'}, true, false))) << "not compact";
  EXPECT_FALSE(read_back(o, str_object<uint16_t>(o, {'a'}, true))) << "wide ASCII";
  auto huge = str_object<uint8_t>(o, {'a'}, true);
  huge[o.unicode.length + 7] = 0x7f;
  EXPECT_FALSE(read_back(o, huge)) << "length";
  const RemoteMemory memory(getpid());
  EXPECT_FALSE(read_string(memory, o, 0));
  EXPECT_FALSE(read_string(memory, o, 0xdead));
  EXPECT_FALSE(read_string(memory, o, ~uint64_t{0} - 7));
}

TEST(PyString, EndsAtTheLastMappedByte) {
  const Offsets o = *offsets_of(12);
  const auto object = str_object<uint8_t>(o, {'e', 'n', 'd', '.'}, true);
  auto* pages =
      static_cast<uint8_t*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
  uint8_t* place = pages + 4096 - 48;  // 44 bytes, aligned
  std::memcpy(place, object.data(), object.size());
  EXPECT_EQ(read_string(RemoteMemory(getpid()), o, reinterpret_cast<uint64_t>(place)), "end.");
  munmap(pages, 8192);
}

// A module's own code is freed once it has run, and that of the next import comes to lie in its place.
TEST(CodeCache, CodeAtTheAddressOfOtherCodeIsNotTakenForIt) {
  const Offsets o = *offsets_of(12);
  const auto text = [&](const char* s) {
    return str_object(o, std::vector<uint8_t>(s, s + std::strlen(s)), true);
  };
  const auto name = text("<module>"), first_file = text("/srv/first.py"), next_file = text("/srv/next.py");
  const std::array<uint64_t, 4> no_lines{};
  std::vector<uint64_t> code(static_cast<size_t>(o.code.size) / 8);
  const auto put = [&](int offset, const void* pointer) {
    code[static_cast<size_t>(offset) / 8] = reinterpret_cast<uint64_t>(pointer);
  };
  const auto make = [&](const std::vector<uint8_t>& file) {  // the frame that runs it
    code[0] = 1;
    put(o.code.filename, file.data());
    put(o.code.filename + 8, name.data());
    put(o.code.name, name.data());
    put(o.code.lines, no_lines.data());
    const auto* names = &code[static_cast<size_t>(o.code.filename) / 8];
    return lt_py_frame{reinterpret_cast<uint64_t>(code.data()), 0, 0,
                       lt_py_names(names[0], names[1], names[2]), 0};
  };
  const RemoteMemory memory(getpid());
  CodeCache cache(memory, o, 0);
  const auto file_of = [&](const lt_py_frame& frame) {
    const Code* found = cache.find(frame);
    return found ? found->source->file : "?";
  };
  const lt_py_frame first = make(first_file);
  EXPECT_EQ(file_of(first), "/srv/first.py");
  const lt_py_frame next = make(next_file);
  EXPECT_EQ(file_of(next), "/srv/next.py");
  EXPECT_EQ(file_of(first), "/srv/first.py") << "was read in time";
  const lt_py_frame gone = make(first_file);
  make(next_file);
  CodeCache late(memory, o, 0);
  EXPECT_EQ(late.find(gone), nullptr);
}

// Beyond that the function's first line is what is told.
TEST(CodeCache, LineTablesOfFourMegabytesAreRead) {
  const Offsets o = *offsets_of(12);
  const auto name = str_object(o, std::vector<uint8_t>{'f'}, true);
  std::vector<uint64_t> table((4u << 20) / 8 + 8), code(static_cast<size_t>(o.code.size) / 8);
  code[0] = 1;
  for (const int offset : {o.code.filename, o.code.name, o.code.filename + 8})
    code[static_cast<size_t>(offset) / 8] = reinterpret_cast<uint64_t>(name.data());
  code[static_cast<size_t>(o.code.lines) / 8] = reinterpret_cast<uint64_t>(table.data());
  const RemoteMemory memory(getpid());
  for (const uint64_t size : {4u << 20, (4u << 20) + 1}) {
    table[static_cast<size_t>(o.bytes.size) / 8] = size;
    CodeCache cache(memory, o, 0);
    const Code* found = cache.find({reinterpret_cast<uint64_t>(code.data()), 0, 0, 0, 0});
    ASSERT_TRUE(found);
    EXPECT_EQ(found->lines.has_value(), size == 4u << 20);
    EXPECT_EQ(found->lines.value_or(std::vector<uint8_t>()).size(), size > 4u << 20 ? 0 : size);
  }
}

TEST(CodeCache, FreedCodeIsNone) {
  const Offsets o = *offsets_of(12);
  const std::string text = "f";
  const auto name = str_object(o, std::vector<uint8_t>(text.begin(), text.end()), true);
  const std::array<uint64_t, 4> no_lines{};
  std::vector<uint64_t> code(static_cast<size_t>(o.code.size) / 8);
  for (const int offset : {o.code.filename, o.code.name, o.code.filename + 8})
    code[static_cast<size_t>(offset) / 8] = reinterpret_cast<uint64_t>(name.data());
  code[static_cast<size_t>(o.code.lines) / 8] = reinterpret_cast<uint64_t>(no_lines.data());
  const RemoteMemory memory(getpid());
  const auto finds = [&](uint64_t first_word) {
    code[0] = first_word;
    CodeCache cache(memory, o, 0);
    return cache.find({reinterpret_cast<uint64_t>(code.data()), 0, 0, 0, 0}) != nullptr;
  };
  EXPECT_TRUE(finds(1));
  EXPECT_TRUE(finds(0xffffffff)) << "immortal, 3.12";
  EXPECT_TRUE(finds(uint64_t{0x0005} << 48 | 0xc0000000)) << "immortal, 3.14";
  EXPECT_FALSE(finds(0)) << "the last of the freed";
  EXPECT_FALSE(finds(0x7f1234567890));
  EXPECT_FALSE(finds(0x7f1200000010));
}

TEST(RemoteMemory, StopsAtTheFirstBadPage) {
  auto* pages = static_cast<uint8_t*>(
      mmap(nullptr, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memset(pages, 7, 3 * 4096);
  ASSERT_EQ(mprotect(pages + 2 * 4096, 4096, PROT_NONE), 0);
  const RemoteMemory memory(getpid());
  const auto start = reinterpret_cast<uint64_t>(pages);
  std::vector<uint8_t> into(3 * 4096);
  EXPECT_EQ(memory.read_some(start + 100, into.data(), into.size() - 100), 2 * 4096u - 100);
  EXPECT_FALSE(memory.read(start + 100, into.data(), into.size() - 100));
  EXPECT_TRUE(memory.read(start + 4000, into.data(), 4000));
  EXPECT_EQ(memory.pointer(start), 0x0707070707070707u);
  EXPECT_FALSE(memory.get<uint64_t>(0));
  EXPECT_FALSE(memory.get<uint64_t>(~uint64_t{0} - 3));
  EXPECT_FALSE(RemoteMemory(0x3fffffff).get<uint64_t>(start)) << "no such process";
  munmap(pages, 3 * 4096);
}

}  // namespace
}  // namespace looptrace::cpython
