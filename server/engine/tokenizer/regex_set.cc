#include "server/engine/tokenizer/regex_set.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/tokenizer/regex_property.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

constexpr int kSetDepthMax = 16;  // Sets in sets; real expressions have two.

absl::Status Unfinished() {
  return absl::InvalidArgumentError("expected the expression to go on, found its end");
}

std::string Item(uint32_t code) { return absl::StrCat("\\x{", absl::Hex(code), "}"); }

// Adds `added` to the union that `set` is.
void Unite(CharacterSet added, CharacterSet& set) {
  if (!added.negated && added.common.empty()) {
    set.items += added.items;
    for (CharacterSet& member : added.members) {
      set.members.push_back(std::move(member));
    }
  } else {
    set.members.push_back(std::move(added));
  }
}

// A property's set turned about, where PCRE2 has a word for that.
CharacterSet Negated(CharacterSet set) {
  if (set.members.empty() && set.common.empty() && absl::StartsWith(set.items, "\\p{") &&
      set.items.find('}') == set.items.size() - 1) {
    set.items[1] = 'P';
    return set;
  }
  set.negated = !set.negated;
  return set;
}

}  // namespace

std::string CharacterSet::ToPcre2() const {
  if (members.empty() && common.empty()) {
    return absl::StrCat(negated ? "[^" : "[", items, "]");
  }
  std::string one;
  if (!common.empty()) {
    for (size_t i = 0; i + 1 < common.size(); ++i) {
      absl::StrAppend(&one, "(?=", common[i].ToPcre2(), ")");
    }
    absl::StrAppend(&one, common.back().ToPcre2());
  } else {
    if (!items.empty()) {
      absl::StrAppend(&one, "[", items, "]|");
    }
    for (const CharacterSet& member : members) {
      absl::StrAppend(&one, member.ToPcre2(), "|");
    }
    one.pop_back();
  }
  return negated ? absl::StrCat("(?:(?!", one, ")(?s:.))") : absl::StrCat("(?:", one, ")");
}

// As Unicode's TR 18 has it, without its joiners.
CharacterSet BracketedWordSet() { return {.items = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"}; }

// Outside brackets Oniguruma takes the superscripts and fractions of Latin-1 for word characters,
// too (found by asking the library about every character, 2026-11-24).
CharacterSet WordSet() {
  CharacterSet set = BracketedWordSet();
  set.items += "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
  return set;
}

// PCRE2's \s has U+180E, which Unicode has not called white space since version 6.3.
CharacterSet SpaceSet() {
  return {.items =
              "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"
              "\\x{202f}\\x{205f}\\x{3000}"};
}

absl::StatusOr<CharacterSet> CharacterSetReader::ReadBrackets() {
  if (++depth_ > kSetDepthMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected sets nested at most ", kSetDepthMax, " deep"));
  }
  ++position_;
  bool negated = false;
  if (Follows("^")) {
    negated = true;
    ++position_;
  }
  CharacterSet set;
  std::vector<CharacterSet> common;
  if (Follows("]")) {  // Not the end: a set is never empty.
    ++position_;
    set.items += Item(']');
  }
  for (bool closed = false; !closed;) {
    if (Follows("&&")) {
      position_ += 2;
      common.push_back(std::exchange(set, {}));
      continue;
    }
    if (absl::Status status = ReadItem(set, closed); !status.ok()) {
      return status;
    }
  }
  --depth_;
  if (!common.empty()) {
    common.push_back(std::move(set));
    set = {.common = std::move(common)};
  }
  for (const CharacterSet& part : set.common) {
    if (part.items.empty() && part.members.empty() && part.common.empty()) {
      return absl::InvalidArgumentError("expected a set on each side of &&");
    }
  }
  set.negated = negated;
  return set;
}

absl::Status CharacterSetReader::ReadItem(CharacterSet& set, bool& closed) {
  if (position_ >= pattern_.size()) {
    return Unfinished();
  }
  if (Follows("]")) {
    ++position_;
    closed = true;
    return absl::OkStatus();
  }
  if (Follows("[")) {
    const auto posix = ReadPosixBracket(set);
    if (!posix.ok() || *posix) {
      return posix.status();
    }
    auto nested = ReadBrackets();
    if (!nested.ok()) {
      return nested.status();
    }
    Unite(*std::move(nested), set);
    return absl::OkStatus();
  }
  if (Follows("\\")) {
    CharacterSet escaped;
    const auto found = ReadSetEscape(/*in_brackets=*/true, escaped);
    if (!found.ok() || *found) {
      Unite(std::move(escaped), set);
      return found.status();
    }
  }
  return ReadRange(set);
}

// A character, or two with '-' between them.
absl::Status CharacterSetReader::ReadRange(CharacterSet& set) {
  const auto read = [this]() -> absl::StatusOr<uint32_t> {
    return Follows("\\") ? ReadCharacterEscape() : ReadLiteral();
  };
  const auto first = read();
  if (!first.ok()) {
    return first.status();
  }
  const size_t hyphen = position_;
  if (Follows("-") && position_ + 1 < pattern_.size()) {
    ++position_;
    CharacterSet ignored;
    const size_t behind = position_;
    const bool at_set = Follows("]") || Follows("[") || Follows("&&");
    const auto escaped =
        Follows("\\") ? ReadSetEscape(/*in_brackets=*/true, ignored) : absl::StatusOr<bool>(false);
    if (!escaped.ok()) {
      return escaped.status();
    }
    if (!at_set && !*escaped) {
      position_ = behind;
      const auto last = read();
      if (last.ok()) {
        absl::StrAppend(&set.items, Item(*first), "-", Item(*last));
      }
      return last.status();
    }
    position_ = hyphen;  // The hyphen stands for itself.
  }
  set.items += Item(*first);
  return absl::OkStatus();
}

absl::StatusOr<bool> CharacterSetReader::ReadPosixBracket(CharacterSet& set) {
  if (!Follows("[:")) {
    return false;
  }
  const size_t end = pattern_.find(":]", position_);
  absl::string_view name =
      pattern_.substr(position_ + 2, end == pattern_.npos ? 0 : end - position_ - 2);
  const bool negated = absl::StartsWith(name, "^");
  name.remove_prefix(negated ? 1 : 0);
  for (const char c : name) {
    if (!absl::ascii_islower(static_cast<unsigned char>(c))) {
      return false;
    }
  }
  if (name.empty()) {
    return false;
  }
  auto named = PosixSet(name);
  if (!named.ok()) {
    return named.status();
  }
  position_ = end + 2;
  Unite(negated ? Negated(*std::move(named)) : *std::move(named), set);
  return true;
}

absl::StatusOr<bool> CharacterSetReader::ReadSetEscape(bool in_brackets, CharacterSet& set) {
  if (position_ + 1 >= pattern_.size()) {
    return Unfinished();
  }
  const char letter = pattern_[position_ + 1];
  switch (absl::ascii_tolower(static_cast<unsigned char>(letter))) {
    case 's':
      set = SpaceSet();
      break;
    case 'w':
      set = in_brackets ? BracketedWordSet() : WordSet();
      break;
    case 'd':
      set.items = "\\p{Nd}";
      break;
    case 'h':
      set.items = "0-9A-Fa-f";
      break;
    case 'p': {
      const size_t end = pattern_.find('}', position_);
      if (pattern_.substr(position_ + 2, 1) != "{" || end == pattern_.npos) {
        return absl::UnimplementedError("a property without braces");
      }
      absl::string_view name = pattern_.substr(position_ + 3, end - position_ - 3);
      const bool negated = absl::StartsWith(name, "^");
      name.remove_prefix(negated ? 1 : 0);
      auto named = PropertySet(name);
      if (!named.ok()) {
        return named.status();
      }
      position_ = end + 1;
      set = negated != (letter == 'P') ? Negated(*std::move(named)) : *std::move(named);
      return true;
    }
    default:
      return false;
  }
  position_ += 2;
  if (absl::ascii_isupper(static_cast<unsigned char>(letter))) {
    set = Negated(std::move(set));
  }
  return true;
}

absl::StatusOr<uint32_t> CharacterSetReader::ReadCharacterEscape() {
  ++position_;
  if (position_ >= pattern_.size()) {
    return Unfinished();
  }
  constexpr absl::string_view kLetters = "ntrfvaeb";
  constexpr absl::string_view kMeanings = "\n\t\r\f\v\a\x1B\b";
  const size_t letter = kLetters.find(pattern_[position_]);
  if (letter != kLetters.npos) {
    ++position_;
    return static_cast<unsigned char>(kMeanings[letter]);
  }
  if (Follows("x{")) {
    position_ += 2;
    auto code = ReadHexDigits(8);
    if (code.ok() && !Follows("}")) {
      return absl::InvalidArgumentError("expected '}' after \\x{ and its digits");
    }
    ++position_;
    return code;
  }
  if (Follows("x")) {
    ++position_;
    auto code = ReadHexDigits(2);
    if (code.ok() && *code >= 0x80) {
      return absl::UnimplementedError("\\x80 and above: a byte of a character");
    }
    return code;
  }
  if (Follows("u")) {
    const size_t begin = ++position_;
    auto code = ReadHexDigits(4);
    if (code.ok() && position_ != begin + 4) {
      return absl::InvalidArgumentError("expected four digits after \\u");
    }
    return code;
  }
  if (absl::ascii_isdigit(static_cast<unsigned char>(pattern_[position_])) || Follows("c") ||
      Follows("C") || Follows("M") || Follows("k") || Follows("g")) {
    return absl::UnimplementedError(absl::StrCat("the escape \\", pattern_.substr(position_, 1)));
  }
  return ReadLiteral();
}

absl::StatusOr<uint32_t> CharacterSetReader::ReadHexDigits(size_t digits_max) {
  uint32_t code = 0;
  size_t digits = 0;
  while (digits < digits_max && position_ < pattern_.size() &&
         absl::ascii_isxdigit(static_cast<unsigned char>(pattern_[position_]))) {
    const char c = pattern_[position_++];
    const bool decimal = absl::ascii_isdigit(static_cast<unsigned char>(c));
    code = code << 4 | static_cast<uint32_t>(decimal ? c - '0' : (c | 0x20) - 'a' + 10);
    ++digits;
  }
  if (digits == 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
    return absl::InvalidArgumentError("expected the hexadecimal number of a character");
  }
  return code;
}

uint32_t CharacterSetReader::ReadLiteral() {
  const uint32_t code = CodeAt(pattern_, position_);
  position_ += Utf8Length(pattern_[position_]);
  return code;
}

}  // namespace nibble
