#include "server/engine/chat/unicode_text.h"

#include <utf8proc.h>

#include <algorithm>

namespace nibble::jinja {
namespace {

utf8proc_category_t CategoryOf(char32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

// Whether the code point is one that a case mapping must keep its hands off: sharp s and the Latin
// ligatures have upper forms of several letters, which utf8proc's one-to-one mapping lacks.
absl::string_view UpperOfSeveral(char32_t code_point) {
  switch (code_point) {
    case 0xDF:
      return "SS";
    case 0xFB00:
      return "FF";
    case 0xFB01:
      return "FI";
    case 0xFB02:
      return "FL";
    case 0xFB03:
      return "FFI";
    case 0xFB04:
      return "FFL";
    case 0xFB05:
    case 0xFB06:
      return "ST";
    default:
      return "";
  }
}

void AppendUpper(std::string& text, char32_t code_point) {
  const absl::string_view several = UpperOfSeveral(code_point);
  if (!several.empty()) {
    text.append(several.data(), several.size());
    return;
  }
  AppendCodePoint(
      text, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code_point))));
}

void AppendTitle(std::string& text, char32_t code_point) {
  const absl::string_view several = UpperOfSeveral(code_point);
  if (!several.empty()) {
    text += several[0];
    text.append(ToLower(several.substr(1)));
    return;
  }
  AppendCodePoint(
      text, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code_point))));
}

bool IsCased(char32_t code_point) {
  const utf8proc_category_t category = CategoryOf(code_point);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

// A capital sigma at a word's end has a lower form of its own.
bool EndsWord(absl::string_view text, size_t begin, size_t end) {
  bool letter_before = false;
  for (size_t position = 0; position < begin;) {
    // Only what is right before matters; a walk from the start is the simplest way backwards, and
    // the letter is rare.
    letter_before = IsCased(NextCodePoint(text, position));
  }
  size_t position = end;
  return letter_before && !(end < text.size() && IsCased(NextCodePoint(text, position)));
}

void AppendLower(std::string& lowered, absl::string_view text, size_t begin, size_t end,
                 char32_t code_point) {
  constexpr char32_t kCapitalSigma = 0x3A3;
  constexpr char32_t kFinalSigma = 0x3C2;
  constexpr size_t kWordBytesMax = 256;
  if (code_point == kCapitalSigma) {
    const size_t window = begin - std::min(begin, kWordBytesMax);
    size_t from = window;
    while (from < begin && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80) {
      ++from;
    }
    if (EndsWord(text.substr(from), begin - from, end - from)) {
      AppendCodePoint(lowered, kFinalSigma);
      return;
    }
  }
  AppendCodePoint(
      lowered, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))));
}

bool Contains(absl::string_view characters, char32_t code_point) {
  for (size_t position = 0; position < characters.size();) {
    if (NextCodePoint(characters, position) == code_point) {
      return true;
    }
  }
  return false;
}

bool IsStripped(char32_t code_point, const absl::string_view* characters) {
  return characters == nullptr ? IsSpace(code_point) : Contains(*characters, code_point);
}

}  // namespace

int64_t CodePointCount(absl::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

char32_t NextCodePoint(absl::string_view text, size_t& position) {
  const auto byte = [&](size_t offset) {
    const size_t at = position + offset;
    return at < text.size() ? static_cast<char32_t>(static_cast<unsigned char>(text[at])) : 0;
  };
  const char32_t first = byte(0);
  if (first < 0x80) {
    position += 1;
    return first;
  }
  if (first < 0xE0) {
    const char32_t code_point = (first & 0x1F) << 6 | (byte(1) & 0x3F);
    position += 2;
    return code_point;
  }
  if (first < 0xF0) {
    const char32_t code_point = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    position += 3;
    return code_point;
  }
  const char32_t code_point =
      (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  position += 4;
  return code_point;
}

void AppendCodePoint(std::string& text, char32_t code_point) {
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0 | code_point >> 6);
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xE0 | code_point >> 12);
    text += static_cast<char>(0x80 | (code_point >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | code_point >> 18);
    text += static_cast<char>(0x80 | (code_point >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (code_point >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  }
}

size_t ByteAt(absl::string_view text, int64_t index) {
  size_t position = 0;
  while (position < text.size()) {
    if ((static_cast<unsigned char>(text[position]) & 0xC0) != 0x80 && index-- == 0) {
      break;
    }
    ++position;
  }
  return position;
}

bool IsSpace(char32_t code_point) {
  if (code_point < 0x80) {
    return code_point == ' ' || (code_point >= 0x09 && code_point <= 0x0D) ||
           (code_point >= 0x1C && code_point <= 0x1F);
  }
  return code_point == 0x85 || code_point == 0xA0 || code_point == 0x1680 ||
         (code_point >= 0x2000 && code_point <= 0x200A) || code_point == 0x2028 ||
         code_point == 0x2029 || code_point == 0x202F || code_point == 0x205F ||
         code_point == 0x3000;
}

bool IsPrintable(char32_t code_point) {
  switch (CategoryOf(code_point)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return code_point == ' ';
    default:
      return true;
  }
}

bool IsLetter(char32_t code_point) {
  const utf8proc_category_t category = CategoryOf(code_point);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDigit(char32_t code_point) { return CategoryOf(code_point) == UTF8PROC_CATEGORY_ND; }

bool IsNumeric(char32_t code_point) {
  const utf8proc_category_t category = CategoryOf(code_point);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool IsUpper(char32_t code_point) { return CategoryOf(code_point) == UTF8PROC_CATEGORY_LU; }

bool IsLower(char32_t code_point) { return CategoryOf(code_point) == UTF8PROC_CATEGORY_LL; }

bool IsWordCharacter(char32_t code_point) {
  return code_point == '_' || IsLetter(code_point) || IsNumeric(code_point);
}

std::string ToUpper(absl::string_view text) {
  std::string upper;
  for (size_t position = 0; position < text.size();) {
    AppendUpper(upper, NextCodePoint(text, position));
  }
  return upper;
}

std::string ToLower(absl::string_view text) {
  std::string lower;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t code_point = NextCodePoint(text, position);
    AppendLower(lower, text, begin, position, code_point);
  }
  return lower;
}

std::string Capitalize(absl::string_view text) {
  std::string capitalized;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t code_point = NextCodePoint(text, position);
    if (begin == 0) {
      AppendTitle(capitalized, code_point);
    } else {
      AppendLower(capitalized, text, begin, position, code_point);
    }
  }
  return capitalized;
}

std::string TitleCase(absl::string_view text) {
  std::string title;
  bool in_word = false;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t code_point = NextCodePoint(text, position);
    if (in_word) {
      AppendLower(title, text, begin, position, code_point);
    } else {
      AppendTitle(title, code_point);
    }
    in_word = IsCased(code_point);
  }
  return title;
}

std::string SwapCase(absl::string_view text) {
  std::string swapped;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t code_point = NextCodePoint(text, position);
    if (IsUpper(code_point)) {
      AppendLower(swapped, text, begin, position, code_point);
    } else if (IsLower(code_point)) {
      AppendUpper(swapped, code_point);
    } else {
      AppendCodePoint(swapped, code_point);
    }
  }
  return swapped;
}

absl::string_view StripLeft(absl::string_view text, const absl::string_view* characters) {
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    if (!IsStripped(NextCodePoint(text, position), characters)) {
      return text.substr(begin);
    }
  }
  return "";
}

absl::string_view StripRight(absl::string_view text, const absl::string_view* characters) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
      --begin;
    }
    size_t position = begin;
    if (!IsStripped(NextCodePoint(text, position), characters)) {
      break;
    }
    end = begin;
  }
  return text.substr(0, end);
}

}  // namespace nibble::jinja
