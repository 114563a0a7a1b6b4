// SPDX-License-Identifier: Apache-2.0
// The parts of the V8 runtime that need no process: tables as bytes, names as text, and hostile ones of each.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "runtimes/v8/bytecodes.h"
#include "runtimes/v8/line_ends.h"
#include "runtimes/v8/recent_names.h"
#include "runtimes/v8/script_name.h"
#include "runtimes/v8/source_map.h"
#include "runtimes/v8/source_map_file.h"
#include "runtimes/v8/source_positions.h"

namespace looptrace::v8 {
namespace {

// One number as V8 writes it: zigzag, 7 bits a byte, the lowest first.
void put(std::vector<uint8_t>& table, int64_t value) {
  auto rest = static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
  do {
    table.push_back(static_cast<uint8_t>((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0)));
    rest >>= 7;
  } while (rest);
}

struct Entry {
  int code, position;
  bool statement;
};

std::vector<uint8_t> position_table(const std::vector<Entry>& entries) {
  std::vector<uint8_t> table;
  int code = -1;
  int64_t position = 0;
  for (const Entry& e : entries) {
    const int step = e.code - code;
    const int64_t raw = (int64_t{e.position} + 1) << 1;
    put(table, e.statement ? step : -step - 1);
    put(table, raw - position);
    code = e.code;
    position = raw;
  }
  return table;
}

std::optional<int> position_at(std::span<const uint8_t> table, int offset) {
  const auto entry = find_position(table, offset);
  return entry ? std::optional<int>(entry->position) : std::nullopt;
}

TEST(V8SourcePositions, TheLastEntryUpToTheOffsetCounts) {
  const auto table = position_table({{0, 100, true}, {3, 90, false}, {3, 95, true}, {700, 40000, false}});
  EXPECT_EQ(position_at(table, 0), 100);
  EXPECT_EQ(position_at(table, 2), 100);
  EXPECT_EQ(position_at(table, 3), 95);
  EXPECT_EQ(position_at(table, 699), 95);
  EXPECT_EQ(position_at(table, 700), 40000);
  EXPECT_EQ(find_position(table, 699)->code, 3);
  EXPECT_EQ(find_position(table, 699)->inlining, -1);
  EXPECT_EQ(position_at(position_table({{5, 7, true}}), 4), std::nullopt);
  EXPECT_EQ(position_at({}, 4), std::nullopt);
}

// As node 26 keeps it of "\n\nfunction f() {...}\nf();": DeclareGlobals, the name f and its call, return.
TEST(V8SourcePositions, WithFlagsFromV8_14On) {
  const std::vector<uint8_t> table = {0x02, 0x04, 0x1e, 0x00, 0x17, 0x80, 0x01, 0x12, 0x00, 0x13, 0x1c};
  const auto at = [&](int64_t offset) {
    return find_position(table, offset, true).value_or(PositionEntry{});
  };
  EXPECT_EQ(at(6).code, 6);
  EXPECT_EQ(at(6).position, 0);
  EXPECT_EQ(at(11).code, 11);
  EXPECT_EQ(at(11).position, 32);
  EXPECT_EQ(at(18).code, 15);
  EXPECT_EQ(at(18).position, 32);
  EXPECT_EQ(at(19).position, 39);
}

// As node 20 keeps it of `mid`, into which smaller(), small() and waits() were inlined (in this order 0, 1,
// 2).
TEST(V8SourcePositions, OfOptimizedCodeTellWhatWasInlined) {
  const std::vector<uint8_t> table = {0x03, 0xd4, 0x07, 0x5f, 0x90, 0xfc, 0xff, 0xff, 0x2f, 0x1d,
                                      0x10, 0x1b, 0x0f, 0x79, 0x58, 0x1d, 0x57, 0x41, 0x58};
  const auto entry = find_position(table, 100);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->code, 74);
  EXPECT_EQ(entry->position, 120);
  EXPECT_EQ(entry->inlining, 2);
  EXPECT_EQ(find_position(table, 46)->position, 244);
  EXPECT_EQ(find_position(table, 46)->inlining, -1);
  const auto caller = unpack_position(0x800001bc);  // of the inlined call of small()
  ASSERT_TRUE(caller);
  EXPECT_EQ(caller->position, 0xde - 1);
  EXPECT_EQ(caller->inlining, 0);
  EXPECT_EQ(unpack_position(1), std::nullopt);
  EXPECT_EQ(unpack_position(0), std::nullopt);
  EXPECT_EQ(unpack_position(-2), std::nullopt);
}

// As node 24 keeps it of `mid`: 21 bytes before the first bytecode, then one of 8, of 4, of 21, of 7, of 17.
TEST(V8BytecodeOffsets, AnAddressIsInTheCodeOfOneBytecode) {
  const std::vector<uint8_t> table = {0x15, 0x08, 0x04, 0x15, 0x07, 0x11};
  EXPECT_EQ(find_bytecode(table, 20, false), std::nullopt);
  EXPECT_EQ(find_bytecode(table, 21, false), 0);
  EXPECT_EQ(find_bytecode(table, 21, true), std::nullopt) << "a call that ends where the first begins";
  EXPECT_EQ(find_bytecode(table, 33, false), 2);
  EXPECT_EQ(find_bytecode(table, 33, true), 1);
  EXPECT_EQ(find_bytecode(table, 54, true), 2);
  EXPECT_EQ(find_bytecode(table, 77, false), 4);
  EXPECT_EQ(find_bytecode(table, 79, true), std::nullopt);
  EXPECT_EQ(find_bytecode(std::vector<uint8_t>{0xff, 0xff}, 1, true), std::nullopt);
  EXPECT_EQ(find_bytecode(std::vector<uint8_t>{0x80, 0x01, 0x02}, 129, false), 0);
}

TEST(V8SourcePositions, BrokenTablesHaveNoPosition) {
  auto table = position_table({{0, 100, true}, {300, 200, true}});
  for (size_t size = 1; size < table.size(); ++size) {
    const auto found = position_at(std::span(table).first(size), 1000);
    EXPECT_TRUE(!found || *found == 100) << size;
  }
  EXPECT_EQ(position_at(std::vector<uint8_t>(64, 0xff), 1), std::nullopt);
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::vector<uint8_t> bytes(random() % 40);
    for (auto& b : bytes) b = static_cast<uint8_t>(random());
    if (const auto found = position_at(bytes, static_cast<int>(random() % 1000))) {
      EXPECT_GE(*found, 0);
    }
    if (const auto found = find_bytecode(bytes, random() % 1000, i % 2)) {
      EXPECT_LT(*found, static_cast<int>(bytes.size()));
    }
  }
}

template <typename Character>
std::vector<uint32_t> ends_of(const std::basic_string<Character>& text, size_t piece) {
  using Unit = std::conditional_t<sizeof(Character) == 1, uint8_t, char16_t>;
  const auto* units = reinterpret_cast<const Unit*>(text.data());
  std::vector<uint32_t> ends;
  bool pending = false;
  for (size_t at = 0; at < text.size(); at += piece) {
    scan_line_ends(std::span<const Unit>(units + at, std::min(piece, text.size() - at)),
                   static_cast<uint32_t>(at), pending, ends);
  }
  return ends;
}

TEST(V8LineEnds, AllKindsOfEndsAreFoundInPiecesOfAnySize) {
  const std::string text = "a\nbc\r\nd\re\n\nf";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    EXPECT_EQ(ends_of(text, piece), (std::vector<uint32_t>{1, 5, 7, 9, 10})) << piece;
  }
  EXPECT_EQ(ends_of(std::u16string(u"a\u2028b\u2029c\nd"), 3), (std::vector<uint32_t>{1, 3, 5}));
  EXPECT_EQ(ends_of(std::string("a\xe2\x80\xa8"), 3), std::vector<uint32_t>()) << "Latin-1, not UTF-8";
}

TEST(V8LineEnds, APositionHasALineAndAColumn) {
  const LineEnds ends({1, 4, 10});
  EXPECT_EQ(ends.find(0)->line, 0);
  EXPECT_EQ(ends.find(1)->line, 0) << "the end itself belongs to its line";
  EXPECT_EQ(ends.find(2)->line, 1);
  EXPECT_EQ(ends.find(3)->column, 1);
  EXPECT_EQ(ends.find(10)->line, 2);
  EXPECT_EQ(ends.find(10)->column, 5);
  EXPECT_FALSE(ends.find(11));
  EXPECT_FALSE(ends.find(-1));
  EXPECT_FALSE(LineEnds().find(0));
}

TEST(V8Bytecodes, PrefixesMakeOperandsWider) {
  // Four prefixes, then a bytecode without operand and one with one.
  const std::vector<uint8_t> table = {1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 5};
  const BytecodeSizes sizes(table);
  ASSERT_TRUE(sizes.known());
  const std::vector<uint8_t> code = {4, 5, 9, 0, 5, 9, 9, 1, 5, 9, 9, 9, 9, 4};
  std::vector<int> offsets;
  const auto note = [&](int offset, uint8_t) {
    offsets.push_back(offset);
    return true;
  };
  sizes.walk(code, note);
  EXPECT_EQ(offsets, (std::vector<int>{0, 1, 3, 7, 13}));
  offsets.clear();
  sizes.walk(std::vector<uint8_t>{4, 200, 4}, note);
  EXPECT_EQ(offsets, std::vector<int>{0}) << "no such bytecode";
  sizes.walk(std::vector<uint8_t>{0}, note);
  EXPECT_EQ(offsets.size(), 1u) << "a prefix of nothing";
  EXPECT_FALSE(BytecodeSizes(std::vector<uint8_t>{1, 2}).known());
}

TEST(V8ScriptName, OriginsAndModules) {
  const auto is = [](std::string_view name, std::string_view file, std::string_view module,
                     FrameOrigin origin) {
    const ScriptName script = classify_script(name);
    EXPECT_EQ(script.file, file);
    EXPECT_EQ(script.module, module) << name;
    EXPECT_EQ(script.origin, origin) << name;
  };
  is("node:internal/timers", "node:internal/timers", "node:internal/timers", FrameOrigin::runtime);
  is("/srv/app/server.js", "/srv/app/server.js", "server", FrameOrigin::application);
  is("file:///srv/a%20b/x.mjs", "/srv/a b/x.mjs", "x", FrameOrigin::application);
  is("file:///srv/100%/%zz%00.js", "/srv/100%/%zz%00.js", "%zz%00", FrameOrigin::application);
  is("/a/node_modules/express/lib/router/index.js", "/a/node_modules/express/lib/router/index.js", "express",
     FrameOrigin::library);
  is("/a/node_modules/x/node_modules/@scope/y/z.js", "/a/node_modules/x/node_modules/@scope/y/z.js",
     "@scope/y", FrameOrigin::library);
  is("[eval]", "[eval]", "[eval]", FrameOrigin::application);
  is("", "", "", FrameOrigin::application);
}

TEST(V8SourceMap, NumbersAreTakenFromTheFront) {
  const auto number = [](std::string_view text) { return take_vlq(text); };
  EXPECT_EQ(number("A"), 0);
  EXPECT_EQ(number("C"), 1);
  EXPECT_EQ(number("D"), -1);
  EXPECT_EQ(number("gB"), 16);
  EXPECT_EQ(number("gggggB"), 1 << 24);
  EXPECT_EQ(number(""), std::nullopt);
  EXPECT_EQ(number("g"), std::nullopt) << "cut off";
  EXPECT_EQ(number("gggggggggB"), std::nullopt) << "too large";
  EXPECT_EQ(number(";"), std::nullopt);
}

std::string place_of(const SourceMap& map, int line, int column) {
  const auto found = map.find(line, column);
  return found ? std::string(found->source) + ":" + std::to_string(found->line) : "none";
}

TEST(V8SourceMap, PositionsAreMapped) {
  // Line 0: column 0 of source 0 line 0, from column 4 on source 1 line 7, from column 8 on none; line 2:
  // line 8.
  const auto map = SourceMap::parse(
      R"({"version":3,"file":"x","sourceRoot":"src","sources":["a.ts","b.ts"],"x":{"mappings":"no"},)"
      R"("mappings":"AAAA,ICOA,I;;AACA"})");
  ASSERT_TRUE(map);
  const auto at = [&](int line, int column) { return place_of(*map, line, column); };
  EXPECT_EQ(at(0, 0), "src/a.ts:0");
  EXPECT_EQ(at(0, 3), "src/a.ts:0");
  EXPECT_EQ(at(0, 4), "src/b.ts:7");
  EXPECT_EQ(at(0, 8), "none");
  EXPECT_EQ(at(1, 0), "none");
  EXPECT_EQ(at(2, 100), "src/b.ts:8");
  EXPECT_EQ(at(3, 0), "none");
  EXPECT_EQ(at(-1, 0), "none");
}

TEST(V8SourceMap, SectionsArePutTogether) {
  // From line 0 column 10 on one.ts, from line 2 column 4 on two.ts; what a section does not map is not the
  // one's before.
  const auto map = SourceMap::parse(
      R"({"version":3,"sections":[{"offset":{"line":0,"column":10},"map":{"sources":["one.ts"],"sourceRoot":"/s",)"
      R"("mappings":"AAAA,KACA;AACA","x":{"mappings":"!"}}},{"map":{"mappings":"CAAA,IAEA","sources":["a","two.ts"]},)"
      R"("offset":{"line":2,"column":4}}]})");
  ASSERT_TRUE(map);
  const auto at = [&](int line, int column) { return place_of(*map, line, column); };
  EXPECT_EQ(at(0, 9), "none");
  EXPECT_EQ(at(0, 10), "/s/one.ts:0");
  EXPECT_EQ(at(0, 15), "/s/one.ts:1");
  EXPECT_EQ(at(1, 0), "/s/one.ts:2") << "only a section's first line begins at its column";
  EXPECT_EQ(at(2, 4), "none");
  EXPECT_EQ(at(2, 5), "a:0");
  EXPECT_EQ(at(2, 9), "a:2");
  for (const char* offset : {R"({"line":-1,"column":0})", R"({"line":0,"column":99999999999})"}) {
    EXPECT_FALSE(SourceMap::parse(std::string(R"({"sections":[{"offset":)") + offset +
                                  R"(,"map":{"mappings":""}}]})"));
  }
  std::string many = R"({"sections":[{})";
  for (int i = 0; i < 5000; ++i) many += ",{}";
  EXPECT_FALSE(SourceMap::parse(many + "]}"));
}

TEST(V8SourceMap, WhatIsNoMapIsRefused) {
  for (const char* text : {"", "{", "[]x", "{\"mappings\":\"AAAA", R"({"mappings":"!"})",
                           R"({"mappings":"AA"})", R"({"mappings":"AAAAAA"})", R"({"mappings":"DAAA"})"}) {
    EXPECT_FALSE(SourceMap::parse(text)) << text;
  }
  const auto without_sources = SourceMap::parse(R"({"mappings":"AAAA"})");
  ASSERT_TRUE(without_sources);
  EXPECT_FALSE(without_sources->find(0, 0));
  EXPECT_TRUE(SourceMap::parse(")]}'\n{\"mappings\":\"\"}"));
  EXPECT_FALSE(SourceMap::parse(std::string(1 << 20, '['))) << "deep nesting neither ends nor overflows";
  std::mt19937 random(3);
  const std::string good = R"({"version":3,"sources":["a.ts"],"mappings":"AAAA,ICOA;AACA,gBAAgB"})";
  for (int i = 0; i < 5000; ++i) {
    std::string broken = good;
    for (int n = 0; n < 3; ++n) broken[random() % broken.size()] = static_cast<char>(random());
    if (const auto map = SourceMap::parse(broken)) (void)map->find(0, 5);
  }
}

TEST(V8SourceMap, WhereTheMapIs) {
  EXPECT_EQ(comment_value("x\n//# sourceMappingURL=app.js.map\n", "sourceMappingURL"), "app.js.map");
  EXPECT_EQ(comment_value("//# sourceMappingURL=a\n//@ sourceMappingURL=b", "sourceMappingURL"), "b")
      << "the last one counts";
  EXPECT_EQ(comment_value("s = 'sourceMappingURL=no'", "sourceMappingURL"), "");
  EXPECT_EQ(comment_value("//# sourceMappingURL=yes\nf('sourceMappingURL=no')", "sourceMappingURL"), "yes");
  EXPECT_EQ(comment_value("sourceMappingURL=", "sourceMappingURL"), "");
  EXPECT_EQ(comment_value("//# sourceURL=a.js\n//# sourceMappingURL=b", "sourceURL"), "a.js");
  EXPECT_EQ(source_path("/srv/dist/", "../src/a.ts"), "/srv/src/a.ts");
  EXPECT_EQ(source_path("/srv/dist/", "/abs/a.ts"), "/abs/a.ts");
  EXPECT_EQ(source_path("/srv/dist/", "webpack://app/./a.ts"), "webpack://app/./a.ts");
  EXPECT_EQ(source_path("/srv/dist/", "file:///abs/a%20b.ts"), "/abs/a b.ts");
  EXPECT_EQ(decode_base64("aGVsbG8="), "hello");
  EXPECT_EQ(decode_base64("aGVs\nbG8="), "hel");
}

TEST(V8RecentNames, AreThoseOfTheVerySameCallAMomentAgo) {
  using std::chrono::milliseconds;
  RecentNames recent;
  const RecentNames::Clock::time_point t0{};
  const auto named = [](const char* function) {
    auto frame = std::make_shared<Frame>();
    frame->function = function;
    return frame;
  };
  const lt_v8_frame call = {
      .user = 7, .pad = 0, .shared = 0x11, .scope = 0x21, .bytecodes = 0x31, .offset = 5ull << 32};
  const std::vector<NamedFrame> names = {{7, named("inner")}, {7, named("outer")}};
  recent.keep(call, 0x4000, names, t0);
  const auto found = recent.find(call, 0x4000, t0 + milliseconds(900));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0]->function, "inner");
  EXPECT_EQ(found[1]->function, "outer");
  EXPECT_TRUE(recent.find(call, 0x4000, t0 + milliseconds(1100)).empty()) << "others may be there by now";
  EXPECT_TRUE(recent.find(call, 0x4008, t0).empty());
  for (const auto member :
       {&lt_v8_frame::shared, &lt_v8_frame::scope, &lt_v8_frame::bytecodes, &lt_v8_frame::offset}) {
    lt_v8_frame other = call;
    other.*member += 8;
    EXPECT_TRUE(recent.find(other, 0x4000, t0).empty());
  }
  lt_v8_frame deeper = call;
  deeper.user = 9;
  EXPECT_EQ(recent.find(deeper, 0x4000, t0).size(), 2u) << "frames of the collector before it come and go";
  recent.keep(call, 0x4000, std::span(names).first(1), t0 + milliseconds(900));
  EXPECT_EQ(recent.find(call, 0x4000, t0 + milliseconds(1800)).size(), 1u);
}

}  // namespace
}  // namespace looptrace::v8
