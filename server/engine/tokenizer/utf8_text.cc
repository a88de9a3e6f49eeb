#include "server/engine/tokenizer/utf8_text.h"

#include <utf8proc.h>

namespace nibble {
namespace {

uint32_t Byte(absl::string_view text, size_t position) {
  return static_cast<unsigned char>(text[position]);
}

// What stands at the head of bytes that may be UTF-8.
struct Head {
  size_t bytes = 0;         // Of the character, or of what cannot be one.
  bool valid = false;       // A whole character.
  bool unfinished = false;  // The bytes end before the character does.
};

// The second byte's range says what the later rules of UTF-8 forbid: overlong forms, surrogates,
// and what lies above U+10FFFF (Unicode, table 3-7).
Head ReadHead(absl::string_view bytes) {
  const uint32_t first = Byte(bytes, 0);
  if (first < 0x80) {
    return {.bytes = 1, .valid = true};
  }
  if (first < 0xC2 || first > 0xF4) {
    return {.bytes = 1};
  }
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  uint32_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  uint32_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) {
      return {.bytes = i, .unfinished = true};
    }
    if (Byte(bytes, i) < low || Byte(bytes, i) > high) {
      return {.bytes = i};
    }
    low = 0x80;
    high = 0xBF;
  }
  return {.bytes = length, .valid = true};
}

utf8proc_category_t Category(uint32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

bool IsBetween(uint32_t code, uint32_t first, uint32_t last) {
  return code >= first && code <= last;
}

}  // namespace

uint32_t CodeAt(absl::string_view text, size_t position) {
  const uint32_t first = Byte(text, position);
  const auto tail = [&](size_t i) { return Byte(text, position + i) & 0x3F; };
  switch (Utf8Length(text[position])) {
    case 1:
      return first;
    case 2:
      return (first & 0x1F) << 6 | tail(1);
    case 3:
      return (first & 0x0F) << 12 | tail(1) << 6 | tail(2);
    default:
      return (first & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
  }
}

size_t PreviousPosition(absl::string_view text, size_t position) {
  do {
    --position;
  } while ((Byte(text, position) & 0xC0) == 0x80);
  return position;
}

size_t FirstInvalidByte(absl::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    const Head head = ReadHead(text.substr(position));
    if (!head.valid) {
      break;
    }
    position += head.bytes;
  }
  return position;
}

bool AppendLossy(std::string& bytes, bool last, std::string& text) {
  bool valid = true;
  size_t position = 0;
  while (position < bytes.size()) {
    const absl::string_view rest = absl::string_view(bytes).substr(position);
    const Head head = ReadHead(rest);
    if (head.unfinished && !last) {
      break;
    }
    const absl::string_view character =
        head.valid ? rest.substr(0, head.bytes) : kReplacementCharacter;
    text.append(character.data(), character.size());
    valid &= head.valid;
    position += head.bytes;
  }
  bytes.erase(0, position);
  return valid;
}

bool IsWhiteSpace(uint32_t code) {
  return IsBetween(code, 0x09, 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || IsBetween(code, 0x2000, 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool IsNumeric(uint32_t code) {
  const utf8proc_category_t category = Category(code);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

bool IsPunctuation(uint32_t code) {
  if (code < 0x80) {
    return IsBetween(code, '!', '/') || IsBetween(code, ':', '@') || IsBetween(code, '[', '`') ||
           IsBetween(code, '{', '~');
  }
  const utf8proc_category_t category = Category(code);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsMark(uint32_t code) {
  const utf8proc_category_t category = Category(code);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool IsWordCharacter(uint32_t code) {
  const utf8proc_category_t category = Category(code);
  if ((category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) || IsMark(code)) {
    return true;
  }
  // Circled and squared letters are Alphabetic without being letters; the joiners are Join_Control.
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_PC || IsBetween(code, 0x24B6, 0x24E9) ||
         IsBetween(code, 0x1F130, 0x1F149) || IsBetween(code, 0x1F150, 0x1F169) ||
         IsBetween(code, 0x1F170, 0x1F189) || code == 0x200C || code == 0x200D;
}

}  // namespace nibble
