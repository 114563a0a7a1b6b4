// SPDX-License-Identifier: Apache-2.0
#include "stacks/rust_demangle.h"

#include <cstdint>
#include <limits>
#include <vector>

namespace looptrace {
namespace {

using std::string_view;

constexpr size_t kMaxInput = 4096;
constexpr size_t kMaxOutput = 4096;
constexpr int kMaxDepth = 96;
constexpr int kMaxSteps = 20000;
constexpr size_t kMaxPunycode = 128;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }

void append_utf8(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

bool is_scalar(uint64_t code) { return code < 0x110000 && (code < 0xd800 || code > 0xdfff); }

// RFC 3492, with '_' for '-' as Rust writes it.
std::optional<std::string> decode_punycode(string_view text) {
  std::vector<uint32_t> points;
  const size_t delimiter = text.rfind('_');
  if (delimiter != string_view::npos) {
    for (const char c : text.substr(0, delimiter)) points.push_back(static_cast<uint8_t>(c));
    text.remove_prefix(delimiter + 1);
  }
  if (points.size() > kMaxPunycode || text.empty()) return std::nullopt;
  uint64_t code = 128, index = 0, bias = 72;
  bool first = true;
  while (!text.empty()) {
    const uint64_t before = index;
    uint64_t weight = 1;
    for (uint64_t k = 36;; k += 36) {
      if (text.empty()) return std::nullopt;
      const char c = text.front();
      text.remove_prefix(1);
      uint64_t digit;
      if (is_lower(c))
        digit = static_cast<uint64_t>(c - 'a');
      else if (is_digit(c))
        digit = static_cast<uint64_t>(c - '0') + 26;
      else
        return std::nullopt;
      index += digit * weight;
      if (index > std::numeric_limits<uint32_t>::max()) return std::nullopt;
      const uint64_t threshold = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
      if (digit < threshold) break;
      weight *= 36 - threshold;
      if (weight > std::numeric_limits<uint32_t>::max()) return std::nullopt;
    }
    const uint64_t count = points.size() + 1;
    uint64_t delta = (index - before) / (first ? 700 : 2);
    delta += delta / count;
    first = false;
    uint64_t k = 0;
    for (; delta > 455; k += 36) delta /= 35;
    bias = k + 36 * delta / (delta + 38);
    code += index / count;
    index %= count;
    if (!is_scalar(code) || points.size() >= kMaxPunycode) return std::nullopt;
    points.insert(points.begin() + static_cast<ptrdiff_t>(index), static_cast<uint32_t>(code));
    ++index;
  }
  std::string out;
  for (const uint32_t point : points) append_utf8(point, out);
  return out;
}

const char* basic_type(char c) {
  switch (c) {
    case 'a':
      return "i8";
    case 'b':
      return "bool";
    case 'c':
      return "char";
    case 'd':
      return "f64";
    case 'e':
      return "str";
    case 'f':
      return "f32";
    case 'h':
      return "u8";
    case 'i':
      return "isize";
    case 'j':
      return "usize";
    case 'l':
      return "i32";
    case 'm':
      return "u32";
    case 'n':
      return "i128";
    case 'o':
      return "u128";
    case 'p':
      return "_";
    case 's':
      return "i16";
    case 't':
      return "u16";
    case 'u':
      return "()";
    case 'v':
      return "...";
    case 'x':
      return "i64";
    case 'y':
      return "u64";
    case 'z':
      return "!";
    default:
      return nullptr;
  }
}

// A recursive-descent reader of the grammar in RFC 2603 and the rustc book. Each method reads one
// production and prints it, unless muted; after a failure nothing matters any more.
class V0 {
 public:
  explicit V0(string_view text) : text_(text) {}

  std::optional<std::string> run() {
    path(true);
    if (!failed_ && at_ < text_.size() && is_upper(text_[at_])) {  // the crate that instantiated it
      ++muted_;
      path(false);
      --muted_;
    }
    // What remains, if anything, is a vendor's suffix: ".llvm.123".
    if (failed_ || (at_ < text_.size() && text_[at_] != '.' && text_[at_] != '$')) return std::nullopt;
    return std::move(out_);
  }

 private:
  // Counts one level of recursion and one step of work.
  class Level {
   public:
    explicit Level(V0& v) : v_(v) {
      if (++v_.depth_ > kMaxDepth || ++v_.steps_ > kMaxSteps) v_.failed_ = true;
    }
    ~Level() { --v_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    V0& v_;
  };

  char peek() const { return at_ < text_.size() && !failed_ ? text_[at_] : '\0'; }
  char next() {
    if (at_ >= text_.size()) failed_ = true;
    return failed_ ? '\0' : text_[at_++];
  }
  bool eat(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void print(string_view s) {
    if (muted_ || failed_) return;
    if (out_.size() + s.size() > kMaxOutput) {
      failed_ = true;
      return;
    }
    out_ += s;
  }

  uint64_t decimal() {
    if (!is_digit(peek())) failed_ = true;
    if (eat('0')) return 0;
    uint64_t value = 0;
    while (is_digit(peek()) && !failed_) {
      value = value * 10 + static_cast<uint64_t>(next() - '0');
      if (value > kMaxInput) failed_ = true;
    }
    return value;
  }

  uint64_t base62() {
    if (eat('_')) return 0;
    uint64_t value = 0;
    while (!failed_ && !eat('_')) {
      const char c = next();
      uint64_t digit = 0;
      if (is_digit(c))
        digit = static_cast<uint64_t>(c - '0');
      else if (is_lower(c))
        digit = static_cast<uint64_t>(c - 'a') + 10;
      else if (is_upper(c))
        digit = static_cast<uint64_t>(c - 'A') + 36;
      else
        failed_ = true;
      if (value > (std::numeric_limits<uint64_t>::max() - digit) / 62) failed_ = true;
      value = value * 62 + digit;
    }
    return value + 1;
  }

  uint64_t optional_base62(char tag) { return eat(tag) ? base62() + 1 : 0; }

  struct Identifier {
    string_view text;
    bool punycode = false;
  };

  Identifier undisambiguated() {
    Identifier id;
    id.punycode = eat('u');
    const uint64_t size = decimal();
    eat('_');
    if (failed_ || size > text_.size() - at_) {
      failed_ = true;
      return {};
    }
    id.text = text_.substr(at_, size);
    at_ += size;
    return id;
  }

  void print(const Identifier& id) {
    if (!id.punycode) return print(id.text);
    if (muted_) return;
    const auto decoded = decode_punycode(id.text);
    if (decoded) return print(string_view(*decoded));
    print("punycode{");
    print(id.text);
    print("}");
  }

  // Runs `what` where a back reference points, which must be before the reference itself.
  template <typename What>
  void back_reference(size_t tag_at, What what) {
    const uint64_t target = base62();
    if (failed_ || target >= tag_at) {
      failed_ = true;
      return;
    }
    if (muted_) return;  // parsed once already: nothing to learn from it
    const size_t resume = at_;
    at_ = target;
    what();
    at_ = resume;
  }

  void path(bool in_value) {
    const Level level(*this);
    const size_t tag_at = at_;
    switch (next()) {
      case 'C': {
        optional_base62('s');
        print(undisambiguated());
        break;
      }
      case 'M':
        impl_path();
        print("<");
        type();
        print(">");
        break;
      case 'X':
        impl_path();
        [[fallthrough]];
      case 'Y':
        print("<");
        type();
        print(" as ");
        path(false);
        print(">");
        break;
      case 'N':
        nested(in_value);
        break;
      case 'I':
        path(in_value);
        if (in_value) print("::");
        print("<");
        list([&] { generic_argument(); });
        print(">");
        break;
      case 'B':
        back_reference(tag_at, [&] { path(in_value); });
        break;
      default:
        failed_ = true;
    }
  }

  void impl_path() {
    optional_base62('s');
    ++muted_;
    path(false);
    --muted_;
  }

  void nested(bool in_value) {
    const char space = next();
    path(in_value);
    const uint64_t disambiguator = optional_base62('s');
    const Identifier id = undisambiguated();
    if (is_upper(space)) {  // closures, shims: "{closure#0}", "{shim:vtable#0}"
      print("::{");
      print(space == 'C'   ? string_view("closure")
            : space == 'S' ? string_view("shim")
                           : string_view(&space, 1));
      if (!id.text.empty()) {
        print(":");
        print(id);
      }
      print("#");
      print(string_view(std::to_string(disambiguator)));
      print("}");
    } else if (is_lower(space)) {
      if (!id.text.empty()) {
        print("::");
        print(id);
      }
    } else {
      failed_ = true;
    }
  }

  // Productions up to 'E', printed with commas between.
  template <typename One>
  size_t list(One one) {
    size_t count = 0;
    for (; !failed_ && !eat('E'); ++count) {
      if (count) print(", ");
      one();
    }
    return count;
  }

  void generic_argument() {
    if (eat('L'))
      lifetime();
    else if (eat('K'))
      constant();
    else
      type();
  }

  void lifetime() {
    // Names of bound lifetimes say nothing about where time went.
    base62();
    print("'_");
  }

  void type() {
    const Level level(*this);
    const size_t tag_at = at_;
    const char tag = next();
    if (const char* name = basic_type(tag)) return print(string_view(name));
    switch (tag) {
      case 'A':
        print("[");
        type();
        print("; ");
        constant();
        print("]");
        break;
      case 'S':
        print("[");
        type();
        print("]");
        break;
      case 'T': {
        print("(");
        if (list([&] { type(); }) == 1) print(",");
        print(")");
        break;
      }
      case 'R':
      case 'Q':
        if (eat('L')) base62();
        print(tag == 'R' ? "&" : "&mut ");
        type();
        break;
      case 'P':
        print("*const ");
        type();
        break;
      case 'O':
        print("*mut ");
        type();
        break;
      case 'F':
        function_type();
        break;
      case 'D':
        dyn_type();
        break;
      case 'B':
        back_reference(tag_at, [&] { type(); });
        break;
      default:
        at_ = tag_at;
        path(false);
    }
  }

  void function_type() {
    optional_base62('G');
    if (eat('U')) print("unsafe ");
    if (eat('K')) {
      print("extern \"");
      if (eat('C'))
        print("C");
      else
        print(undisambiguated());
      print("\" ");
    }
    print("fn(");
    list([&] { type(); });
    print(")");
    if (eat('u')) return;
    print(" -> ");
    type();
  }

  void dyn_type() {
    print("dyn ");
    optional_base62('G');
    size_t count = 0;
    for (; !failed_ && !eat('E'); ++count) {
      if (count) print(" + ");
      dyn_trait();
    }
    if (!eat('L')) failed_ = true;
    base62();
  }

  // A trait with its associated types inside its generics: "Iterator<Item = u8>".
  void dyn_trait() {
    bool open = open_path();
    while (eat('p')) {
      print(open ? ", " : "<");
      open = true;
      print(undisambiguated());
      print(" = ");
      type();
    }
    if (open) print(">");
  }

  // A path whose generics are left open. True if it has any.
  bool open_path() {
    const Level level(*this);
    const size_t tag_at = at_;
    if (eat('B')) {
      bool open = false;
      back_reference(tag_at, [&] { open = open_path(); });
      return open;
    }
    if (!eat('I')) {
      path(false);
      return false;
    }
    path(false);
    print("<");
    list([&] { generic_argument(); });
    return true;
  }

  void constant() {
    const Level level(*this);
    const size_t tag_at = at_;
    const char tag = next();
    if (tag == 'p') return print("_");
    if (tag == 'B') return back_reference(tag_at, [&] { constant(); });
    if (tag == 'R' || tag == 'Q') {
      if (tag == 'R' && eat('e')) return constant_string();
      print(tag == 'R' ? "&" : "&mut ");
      return constant();
    }
    if (tag == 'A' || tag == 'T') {
      print(tag == 'A' ? "[" : "(");
      const size_t count = list([&] { constant(); });
      if (tag == 'T' && count == 1) print(",");
      return print(tag == 'A' ? "]" : ")");
    }
    if (tag == 'V') return constant_variant();
    const bool negative = eat('n');
    const string_view digits = hex_digits();
    if (failed_) return;
    uint64_t value = 0;
    for (const char c : digits.substr(0, 16))
      value = value << 4 | static_cast<uint64_t>(is_digit(c) ? c - '0' : c - 'a' + 10);
    if (tag == 'b' && digits.size() <= 16 && value < 2) return print(value ? "true" : "false");
    if (tag == 'c' && digits.size() <= 16 && is_scalar(value)) {
      std::string quoted = "'";
      append_utf8(static_cast<uint32_t>(value), quoted);
      return print(string_view(quoted += '\''));
    }
    if (string_view("aijlmnoshtxy").find(tag) == string_view::npos) {
      failed_ = true;
      return;
    }
    if (negative) print("-");
    if (digits.size() > 16) {
      print("0x");
      print(digits);
    } else {
      print(string_view(std::to_string(value)));
    }
  }

  // {hex} "_", without leading zeros.
  string_view hex_digits() {
    const size_t start = at_;
    while (is_hex(peek())) ++at_;
    string_view digits = text_.substr(start, at_ - start);
    if (!eat('_')) failed_ = true;
    while (digits.size() > 1 && digits[0] == '0') digits.remove_prefix(1);
    return digits;
  }

  void constant_string() {
    const size_t start = at_;
    while (is_hex(peek())) ++at_;
    const string_view digits = text_.substr(start, at_ - start);
    if (!eat('_') || digits.size() % 2) failed_ = true;
    print("\"");
    const auto nibble = [](char c) { return is_digit(c) ? c - '0' : c - 'a' + 10; };
    for (size_t i = 0; i + 1 < digits.size() && !failed_; i += 2) {
      const char c = static_cast<char>(nibble(digits[i]) << 4 | nibble(digits[i + 1]));
      print(string_view(&c, 1));
    }
    print("\"");
  }

  void constant_variant() {
    path(true);
    switch (next()) {
      case 'U':
        break;
      case 'T':
        print("(");
        list([&] { constant(); });
        print(")");
        break;
      case 'S':
        print(" { ");
        list([&] {
          optional_base62('s');
          print(undisambiguated());
          print(": ");
          constant();
        });
        print(" }");
        break;
      default:
        failed_ = true;
    }
  }

  string_view text_;
  size_t at_ = 0;
  std::string out_;
  int depth_ = 0, steps_ = 0, muted_ = 0;
  bool failed_ = false;
};

// One part of a legacy path with its escapes: "$LT$impl$u20$core..fmt..Debug$GT$".
void append_legacy_part(string_view part, std::string& out) {
  struct Escape {
    string_view code, text;
  };
  static constexpr Escape kEscapes[] = {{"$SP$", "@"}, {"$BP$", "*"}, {"$RF$", "&"}, {"$LT$", "<"},
                                        {"$GT$", ">"}, {"$LP$", "("}, {"$RP$", ")"}, {"$C$", ","}};
  if (part.starts_with("_$")) part.remove_prefix(1);
  while (!part.empty()) {
    if (part.starts_with("..")) {
      out += "::";
      part.remove_prefix(2);
      continue;
    }
    if (part[0] == '$') {
      bool known = false;
      for (const Escape& escape : kEscapes) {
        if (!part.starts_with(escape.code)) continue;
        out += escape.text;
        part.remove_prefix(escape.code.size());
        known = true;
        break;
      }
      const size_t end = part.find('$', 1);
      if (!known && part.starts_with("$u") && end != string_view::npos && end > 2 && end <= 8) {
        uint64_t code = 0;
        bool sound = true;
        for (const char c : part.substr(2, end - 2)) {
          sound &= is_hex(c);
          code = code << 4 | static_cast<uint64_t>(is_digit(c) ? c - '0' : c - 'a' + 10);
        }
        if (sound && is_scalar(code) && code >= 0x20) {
          append_utf8(static_cast<uint32_t>(code), out);
          part.remove_prefix(end + 1);
          known = true;
        }
      }
      if (known) continue;
    }
    out += part[0];
    part.remove_prefix(1);
  }
}

bool is_legacy_hash(string_view part) {
  return part.size() == 17 && part[0] == 'h' &&
         part.find_first_not_of("0123456789abcdef", 1) == string_view::npos;
}

}  // namespace

std::optional<std::string> demangle_rust_legacy(string_view mangled) {
  if (mangled.size() > kMaxInput || !mangled.starts_with("_ZN")) return std::nullopt;
  string_view rest = mangled.substr(3);
  std::vector<string_view> parts;
  while (!rest.empty() && rest[0] != 'E') {
    size_t size = 0;
    if (!is_digit(rest[0])) return std::nullopt;
    while (!rest.empty() && is_digit(rest[0]) && size <= kMaxInput) {
      size = size * 10 + static_cast<size_t>(rest[0] - '0');
      rest.remove_prefix(1);
    }
    if (size == 0 || size > rest.size()) return std::nullopt;
    parts.push_back(rest.substr(0, size));
    rest.remove_prefix(size);
  }
  // Behind the E only a suffix of the compiler: ".llvm.123", ".cold".
  if (rest.empty() || (rest.size() > 1 && rest[1] != '.')) return std::nullopt;
  if (parts.size() < 2 || !is_legacy_hash(parts.back())) return std::nullopt;
  parts.pop_back();
  std::string out;
  for (const string_view part : parts) {
    if (!out.empty()) out += "::";
    append_legacy_part(part, out);
  }
  return out;
}

std::optional<std::string> demangle_rust_v0(string_view mangled) {
  if (mangled.size() > kMaxInput || !mangled.starts_with("_R") || mangled.size() < 4) return std::nullopt;
  // A digit would be the version of a later encoding.
  if (!is_upper(mangled[2])) return std::nullopt;
  return V0(mangled.substr(2)).run();
}

}  // namespace looptrace
