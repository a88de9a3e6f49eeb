#include "server/engine/grammar/pattern_reader.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/grammar/grammar_limits.h"

namespace nibble {
namespace {

std::u32string CodesOf(absl::string_view utf8) {
  std::u32string codes;
  for (const char c : utf8) {
    const auto byte = static_cast<uint8_t>(c);
    if ((byte & 0xC0) == 0x80 && !codes.empty()) {
      codes.back() = (codes.back() << 6) | (byte & 0x3F);
    } else {
      codes.push_back(byte < 0x80   ? byte
                      : byte < 0xE0 ? byte & 0x1F
                      : byte < 0xF0 ? byte & 0x0F
                                    : byte & 0x07);
    }
  }
  return codes;
}

}  // namespace

PatternReader::PatternReader(absl::string_view text) : text_(text), codes_(CodesOf(text)) {}

uint32_t PatternReader::Peek(size_t ahead) const {
  return at_end() || position_ + ahead >= codes_.size() ? 0 : codes_[position_ + ahead];
}

uint32_t PatternReader::Next() {
  const uint32_t code = Peek();
  ++position_;
  return code;
}

bool PatternReader::Consume(absl::string_view ascii) {
  for (size_t i = 0; i < ascii.size(); ++i) {
    if (at_end() || Peek(i) != static_cast<uint8_t>(ascii[i])) {
      return false;
    }
  }
  position_ += ascii.size();
  return true;
}

void PatternReader::Unsupported(absl::string_view what) {
  if (status_.ok()) {
    status_ = absl::UnimplementedError(
        absl::StrCat("pattern ", Printable(text_), ": ", what, " is not supported"));
  }
}

void PatternReader::Invalid(absl::string_view what) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat("pattern ", Printable(text_), ": ", what));
  }
}

uint32_t PatternReader::ReadHex(int digits) {
  uint32_t value = 0;
  for (int i = 0; i < digits; ++i) {
    const uint32_t code = Next();
    if (code > 0x7F || !absl::ascii_isxdigit(static_cast<unsigned char>(code))) {
      Invalid(absl::StrCat("expected ", digits, " hexadecimal digits behind \\x or \\u"));
      return 0;
    }
    value = value * 16 + (code <= '9' ? code - '0' : (code | 0x20) - 'a' + 10);
  }
  return value;
}

CharacterClass PatternReader::ReadEscape(bool in_class) {
  if (at_end()) {
    Invalid("ends with a backslash");
    return {};
  }
  const uint32_t code = Next();
  if (auto named = ClassOfLetter(code); named.has_value()) {
    return *named;
  }
  constexpr absl::string_view kLetters = "tnrfv0";
  constexpr absl::string_view kCodes("\t\n\r\f\v\0", 6);
  uint32_t meant = code;
  if (code == 'x' || code == 'u') {
    if (Peek() == '{') {
      Unsupported("\\u{}");
    }
    meant = ReadHex(code == 'x' ? 2 : 4);
  } else if (code == 'b' && in_class) {
    meant = '\b';
  } else if (const size_t at = code < 0x80 ? kLetters.find(static_cast<char>(code)) : kLetters.npos;
             at != kLetters.npos) {
    meant = static_cast<uint8_t>(kCodes[at]);
  } else if (code < 0x80 && absl::ascii_isalnum(static_cast<unsigned char>(code))) {
    Unsupported(absl::StrCat("\\", std::string(1, static_cast<char>(code))));
  }
  if (meant >= 0xD800 && meant <= 0xDFFF) {
    Unsupported("a surrogate");
  }
  return {{meant, meant}};
}

CharacterClass PatternReader::ReadClass() {
  const bool is_negated = Consume("^");
  CharacterClass result;
  while (!Consume("]")) {
    if (at_end()) {
      Invalid("[ without ]");
      return {};
    }
    const auto read_one = [&]() -> CharacterClass {
      const uint32_t code = Next();
      return code == '\\' ? ReadEscape(true) : CharacterClass{{code, code}};
    };
    const CharacterClass low = read_one();
    const bool is_range = Peek() == '-' && Peek(1) != ']' && Peek(1) != 0;
    if (!is_range) {
      result.insert(result.end(), low.begin(), low.end());
      continue;
    }
    Next();
    const CharacterClass high = read_one();
    if (low.size() != 1 || high.size() != 1 || low[0].first != low[0].last ||
        high[0].first != high[0].last || low[0].first > high[0].first) {
      Invalid("a range of a class that is none");
      return {};
    }
    result.push_back({low[0].first, high[0].first});
  }
  return is_negated ? Complement(std::move(result)) : Normalized(std::move(result));
}

std::optional<int64_t> PatternReader::ReadCount() {
  if (Peek() < '0' || Peek() > '9') {
    return std::nullopt;
  }
  int64_t count = 0;
  while (Peek() >= '0' && Peek() <= '9') {
    count = std::min(count * 10 + (Next() - '0'), kPatternRepeatsMax + 1);
  }
  if (count > kPatternRepeatsMax) {
    Invalid(absl::StrCat("expected at most ", kPatternRepeatsMax, " repetitions"));
  }
  return count;
}

}  // namespace nibble
