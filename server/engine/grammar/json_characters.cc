#include "server/engine/grammar/json_characters.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/strings/str_format.h"

namespace nibble {
namespace {

constexpr uint32_t kSurrogateFirst = 0xD800;
constexpr uint32_t kSurrogateLast = 0xDFFF;

std::string Utf8(uint32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    return {static_cast<char>(code)};
  }
  if (code < 0x800) {
    return {static_cast<char>(0xC0 | (code >> 6)), tail(0)};
  }
  if (code < 0x10000) {
    return {static_cast<char>(0xE0 | (code >> 12)), tail(6), tail(0)};
  }
  return {static_cast<char>(0xF0 | (code >> 18)), tail(12), tail(6), tail(0)};
}

// Draws first..last as UTF-8.
//
// Requires: both have the same number of bytes.
void AddSameLength(GrammarBuilder& builder, GrammarNode from, uint32_t first, uint32_t last,
                   GrammarNode to) {
  // Cut until each byte is a range by itself: all bytes behind one that varies must be full.
  for (int tails = 1; tails <= 3; ++tails) {
    const uint32_t mask = (1u << (6 * tails)) - 1;
    if (last <= mask || (first & ~mask) == (last & ~mask)) {
      continue;
    }
    if ((first & mask) != 0) {
      AddSameLength(builder, from, first, first | mask, to);
      AddSameLength(builder, from, (first | mask) + 1, last, to);
      return;
    }
    if ((last & mask) != mask) {
      AddSameLength(builder, from, first, (last & ~mask) - 1, to);
      AddSameLength(builder, from, last & ~mask, last, to);
      return;
    }
  }
  const std::string low = Utf8(first);
  const std::string high = Utf8(last);
  for (size_t i = 0; i + 1 < low.size(); ++i) {
    from = builder.Range(from, static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i]));
  }
  builder.AddBytes(from, static_cast<uint8_t>(low.back()), static_cast<uint8_t>(high.back()), to);
}

void AddUtf8(GrammarBuilder& builder, GrammarNode from, CodePointRange range, GrammarNode to) {
  // Where the number of bytes changes, and around the surrogates.
  constexpr CodePointRange kParts[] = {{0, 0x7F},
                                       {0x80, 0x7FF},
                                       {0x800, kSurrogateFirst - 1},
                                       {kSurrogateLast + 1, 0xFFFF},
                                       {0x10000, kCodePointMax}};
  for (const CodePointRange& part : kParts) {
    const uint32_t first = std::max(range.first, part.first);
    const uint32_t last = std::min(range.last, part.last);
    if (first <= last) {
      AddSameLength(builder, from, first, last, to);
    }
  }
}

// The letter of a short escape, or 0.
char ShortEscape(uint32_t code) {
  switch (code) {
    case '\b':
      return 'b';
    case '\t':
      return 't';
    case '\n':
      return 'n';
    case '\f':
      return 'f';
    case '\r':
      return 'r';
    case '"':
    case '\\':
      return static_cast<char>(code);
    default:
      return 0;
  }
}

void AddEscaped(GrammarBuilder& builder, GrammarNode from, uint32_t code, GrammarNode to) {
  const GrammarNode escape = builder.Literal(from, "\\");
  if (const char letter = ShortEscape(code); letter != 0) {
    builder.AddEmpty(builder.Literal(escape, {&letter, 1}), to);
    return;
  }
  const std::string lower = absl::StrFormat("u%04x", code);
  const std::string upper = absl::StrFormat("u%04X", code);
  builder.AddEmpty(builder.Literal(escape, lower), to);
  if (upper != lower) {
    builder.AddEmpty(builder.Literal(escape, upper), to);
  }
}

// Parts of what needs no escape: all but control characters, the quote and the backslash.
constexpr CodePointRange kPlainParts[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, kCodePointMax}};

void AddOne(GrammarBuilder& builder, GrammarNode from, CodePointRange range, GrammarNode to) {
  for (const CodePointRange& part : kPlainParts) {
    const uint32_t first = std::max(range.first, part.first);
    const uint32_t last = std::min(range.last, part.last);
    if (first <= last) {
      AddUtf8(builder, from, {first, last}, to);
    }
  }
  for (uint32_t code = range.first; code <= std::min(range.last, uint32_t{0x5C}); ++code) {
    if (code < 0x20 || code == '"' || code == '\\') {
      AddEscaped(builder, from, code, to);
    }
  }
}

// One of several ranges of ASCII.
GrammarNode AnyOf(GrammarBuilder& builder, GrammarNode from,
                  std::initializer_list<std::array<char, 2>> ranges) {
  const GrammarNode to = builder.AddNode();
  for (const auto& [first, last] : ranges) {
    builder.AddBytes(from, static_cast<uint8_t>(first), static_cast<uint8_t>(last), to);
  }
  return to;
}

GrammarNode HexDigits(GrammarBuilder& builder, GrammarNode from, int count) {
  for (int i = 0; i < count; ++i) {
    from = AnyOf(builder, from, {{'0', '9'}, {'A', 'F'}, {'a', 'f'}});
  }
  return from;
}

}  // namespace

GrammarNode AddCharacter(GrammarBuilder& builder, GrammarNode from,
                         std::span<const CodePointRange> ranges) {
  const GrammarNode to = builder.AddNode();
  for (const CodePointRange& range : ranges) {
    AddOne(builder, from, range, to);
  }
  return to;
}

GrammarNode AddAnyCharacter(GrammarBuilder& builder, GrammarNode from) {
  const GrammarNode to = AddCharacter(builder, from, kPlainParts);
  const GrammarNode escape = builder.Literal(from, "\\");
  for (const char letter : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) {
    builder.AddEmpty(builder.Literal(escape, {&letter, 1}), to);
  }
  const GrammarNode hex = builder.Literal(escape, "u");
  const GrammarNode no_surrogate =
      AnyOf(builder, hex, {{'0', '9'}, {'A', 'C'}, {'a', 'c'}, {'E', 'F'}, {'e', 'f'}});
  builder.AddEmpty(HexDigits(builder, no_surrogate, 3), to);
  const GrammarNode d = AnyOf(builder, hex, {{'D', 'D'}, {'d', 'd'}});
  builder.AddEmpty(HexDigits(builder, AnyOf(builder, d, {{'0', '7'}}), 2), to);
  const GrammarNode high =
      HexDigits(builder, AnyOf(builder, d, {{'8', '9'}, {'A', 'B'}, {'a', 'b'}}), 2);
  const GrammarNode low = AnyOf(builder, builder.Literal(high, "\\u"), {{'D', 'D'}, {'d', 'd'}});
  builder.AddEmpty(HexDigits(builder, AnyOf(builder, low, {{'C', 'F'}, {'c', 'f'}}), 2), to);
  return to;
}

GrammarNode AddCharacters(GrammarBuilder& builder, GrammarNode from, absl::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || c == '"' || c == '\\') {
      const GrammarNode to = builder.AddNode();
      AddEscaped(builder, from, byte, to);
      from = to;
    } else {
      from = builder.Range(from, byte, byte);
    }
  }
  return from;
}

GrammarNode AddStringLiteral(GrammarBuilder& builder, GrammarNode from, absl::string_view text) {
  return builder.Literal(AddCharacters(builder, builder.Literal(from, "\""), text), "\"");
}

}  // namespace nibble
