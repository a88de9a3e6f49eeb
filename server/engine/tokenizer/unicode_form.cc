#include "server/engine/tokenizer/unicode_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/check.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

// The longest decomposition of one character: U+FDFA has 18.
constexpr size_t kDecompositionMax = 32;

int CombiningClass(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

// Puts each run of combining characters in the order of their classes. utf8proc does this too, by
// exchanging neighbours: a text of a million accents would take it minutes.
void OrderCombining(std::vector<utf8proc_int32_t>& codes) {
  const auto combines = [](utf8proc_int32_t code) { return CombiningClass(code) != 0; };
  auto begin = codes.begin();
  while ((begin = std::find_if(begin, codes.end(), combines)) != codes.end()) {
    const auto end = std::find_if_not(begin, codes.end(), combines);
    std::stable_sort(begin, end, [](utf8proc_int32_t left, utf8proc_int32_t right) {
      return CombiningClass(left) < CombiningClass(right);
    });
    begin = end;
  }
}

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

std::string ToUnicodeForm(absl::string_view text, UnicodeForm form) {
  if (IsAscii(text)) {
    return std::string(text);
  }
  const auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                        (form.compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  std::array<utf8proc_int32_t, kDecompositionMax> parts{};
  for (size_t position = 0; position < text.size(); position += Utf8Length(text[position])) {
    int boundary_class = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(CodeAt(text, position)), parts.data(),
                                kDecompositionMax, decompose, &boundary_class);
    Check(count >= 0 && count <= static_cast<utf8proc_ssize_t>(kDecompositionMax),
          "a character decomposes into a few");
    codes.insert(codes.end(), parts.begin(), parts.begin() + count);
  }
  OrderCombining(codes);
  if (form.composed) {
    const utf8proc_ssize_t count = utf8proc_normalize_utf32(
        codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    Check(count >= 0 && count <= static_cast<utf8proc_ssize_t>(codes.size()),
          "composing makes a text shorter");
    codes.resize(static_cast<size_t>(count));
  }
  std::string result;
  result.reserve(text.size());
  for (const utf8proc_int32_t code : codes) {
    AppendUtf8(static_cast<uint32_t>(code), result);
  }
  return result;
}

std::string ToLowercase(absl::string_view text) {
  constexpr uint32_t kCapitalIWithDot = 0x130;
  std::string result;
  result.reserve(text.size());
  for (size_t position = 0; position < text.size(); position += Utf8Length(text[position])) {
    const uint32_t code = CodeAt(text, position);
    if (code == kCapitalIWithDot) {
      result += "i\xCC\x87";  // i and U+0307.
    } else {
      AppendUtf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))),
                 result);
    }
  }
  return result;
}

}  // namespace nibble
