#include "server/engine/grammar/character_classes.h"

#include <algorithm>
#include <utility>

namespace nibble {

CharacterClass Normalized(CharacterClass ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const CodePointRange& a, const CodePointRange& b) { return a.first < b.first; });
  CharacterClass result;
  for (const CodePointRange& range : ranges) {
    if (!result.empty() && range.first <= result.back().last + 1) {
      result.back().last = std::max(result.back().last, range.last);
    } else {
      result.push_back(range);
    }
  }
  return result;
}

CharacterClass Complement(CharacterClass ranges) {
  CharacterClass result;
  uint32_t next = 0;
  for (const CodePointRange& range : Normalized(std::move(ranges))) {
    if (range.first > next) {
      result.push_back({next, range.first - 1});
    }
    next = range.last + 1;
  }
  if (next <= kCodePointMax) {
    result.push_back({next, kCodePointMax});
  }
  return result;
}

std::optional<CharacterClass> ClassOfLetter(uint32_t letter) {
  switch (letter) {
    case 'd':
      return CharacterClass{{'0', '9'}};
    case 'w':
      return CharacterClass{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    case 's':
      // WhiteSpace and LineTerminator of ECMA-262.
      return CharacterClass{{0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680},
                            {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                            {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    case 'D':
    case 'W':
    case 'S':
      return Complement(*ClassOfLetter(letter - 'A' + 'a'));
    default:
      return std::nullopt;
  }
}

CharacterClass AnyButLineEnds() {
  return Complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}});
}

}  // namespace nibble
