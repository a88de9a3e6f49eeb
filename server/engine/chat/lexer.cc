#include "server/engine/chat/lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/engine/chat/literals.h"
#include "server/engine/chat/text_search.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

constexpr auto npos = absl::string_view::npos;

// Longer ones first.
constexpr std::array<absl::string_view, 25> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};

std::string NormalizeLineBreaks(absl::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      i += i + 1 < source.size() && source[i + 1] == '\n' ? 1 : 0;
    } else {
      text += source[i];
    }
  }
  if (absl::EndsWith(text, "\n")) {
    text.pop_back();
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (status_.ok() && position_ < source_.size()) {
      LexText();
    }
    if (!status_.ok()) {
      return status_;
    }
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::string_view rest() const { return source_.substr(position_); }

  void Fail(absl::string_view message) {
    if (status_.ok()) {
      status_ =
          absl::InvalidArgumentError(absl::StrCat("chat template, line ", line_, ": ", message));
    }
  }

  Token& Add(Token::Kind kind, absl::string_view text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::string(text);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  // Moves on, counting lines.
  void Advance(size_t bytes) {
    const absl::string_view passed = source_.substr(position_, bytes);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    position_ += passed.size();
    at_line_start_ = absl::EndsWith(passed, "\n");
  }

  void SkipSpace() { Advance(rest().size() - StripLeft(rest()).size()); }

  // Where the next tag begins; source_.size() if there is none.
  size_t FindTag() const {
    for (size_t at = position_; (at = source_.find('{', at)) != npos; ++at) {
      if (at + 1 < source_.size() && absl::StrContains("%{#", source_[at + 1])) {
        return at;
      }
    }
    return source_.size();
  }

  // The text up to the next tag, less the white space that the tag takes, and the tag.
  void LexText() {
    const size_t tag = FindTag();
    absl::string_view text = source_.substr(position_, tag - position_);
    const char opener = tag < source_.size() ? source_[tag + 1] : 0;
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : 0;
    const bool has_sign = sign == '-' || (sign == '+' && opener != '{');
    if (opener != 0) {
      text = Trimmed(text, sign, opener != '{');
    }
    if (!text.empty()) {
      Add(Token::Kind::kText, text);
    }
    Advance(tag - position_);
    if (opener == 0) {
      return;
    }
    Advance(has_sign ? 3 : 2);
    if (opener == '#') {
      SkipComment();
    } else if (opener == '{') {
      LexTag(Token::Kind::kPrintBegin, Token::Kind::kPrintEnd, "}}");
    } else if (!LexRaw()) {
      LexTag(Token::Kind::kBlockBegin, Token::Kind::kBlockEnd, "%}");
    }
  }

  // What a tag leaves of the text before it.
  absl::string_view Trimmed(absl::string_view text, char sign, bool is_block) const {
    if (sign == '-') {
      return StripRight(text);
    }
    if (sign == '+' || !is_block) {
      return text;
    }
    const size_t line = text.rfind('\n') + 1;  // 0 if there is none.
    const bool begins_line = line > 0 || at_line_start_;
    return begins_line && StripLeft(text.substr(line)).empty() ? text.substr(0, line) : text;
  }

  void SkipComment() {
    const size_t end = source_.find("#}", position_);
    if (position_ == source_.size()) {
      return;  // As Jinja, which looks for an end only where something follows.
    }
    if (end == npos) {
      Fail("a comment has no end");
      return;
    }
    const char sign = end > position_ ? source_[end - 1] : 0;
    Advance(end + 2 - position_);
    LeaveTag(sign);
  }

  // Behind a block or comment whose end had this sign.
  void LeaveTag(char sign) {
    if (sign == '-') {
      // A tag that takes nothing leaves the start of the line where its own text left it.
      if (StripLeft(rest()).size() < rest().size()) {
        SkipSpace();
      }
    } else if (sign != '+' && absl::StartsWith(rest(), "\n")) {
      Advance(1);
    }
  }

  // `raw ... endraw`, if that is what the block at hand is.
  bool LexRaw() {
    absl::string_view left = StripLeft(rest());
    if (!absl::ConsumePrefix(&left, "raw")) {
      return false;
    }
    left = StripLeft(left);
    const bool strips = absl::StartsWith(left, "-%}");
    if (!strips && !absl::StartsWith(left, "%}")) {
      return false;
    }
    Advance(rest().size() - left.size() + (strips ? 3 : 2));
    if (strips) {
      LeaveTag('-');
    }
    FindEndOfRaw();
    return true;
  }

  void FindEndOfRaw() {
    for (size_t at = position_; (at = source_.find("{%", at)) != npos; ++at) {
      absl::string_view tag = source_.substr(at + 2);
      const char sign = tag.empty() ? '\0' : tag[0];
      tag = StripLeft(tag.substr(sign == '-' || sign == '+' ? 1 : 0));
      if (!absl::ConsumePrefix(&tag, "endraw")) {
        continue;
      }
      tag = StripLeft(tag);
      const char end_sign = tag.empty() ? '\0' : tag[0];
      if (!absl::StartsWith(tag.substr(end_sign == '-' || end_sign == '+' ? 1 : 0), "%}")) {
        continue;
      }
      const absl::string_view text = Trimmed(source_.substr(position_, at - position_), sign, true);
      if (!text.empty()) {
        Add(Token::Kind::kText, text);
      }
      const size_t end = source_.find("%}", source_.size() - tag.size()) + 2;
      Advance(end - position_);
      LeaveTag(end_sign);
      return;
    }
    if (position_ < source_.size()) {
      Fail("a raw block has no end");
    }
  }

  // The inside of a tag, up to its end.
  void LexTag(Token::Kind begin, Token::Kind end, absl::string_view closer) {
    Add(begin, "");
    while (status_.ok()) {
      SkipSpace();
      if (position_ >= source_.size()) {
        Fail(absl::StrCat("a tag has no end: expected '", closer, "'"));
      } else if (open_.empty() && LexTagEnd(end, closer)) {
        return;
      } else {
        LexWord();
      }
    }
  }

  bool LexTagEnd(Token::Kind end, absl::string_view closer) {
    const char first = rest()[0];
    const bool has_sign = first == '-' || (first == '+' && closer == "%}");
    if (!absl::StartsWith(rest().substr(has_sign ? 1 : 0), closer)) {
      return false;
    }
    Add(end, "");
    Advance(closer.size() + (has_sign ? 1 : 0));
    if (has_sign && first == '-') {
      LeaveTag('-');
    } else if (closer == "%}") {
      LeaveTag(has_sign ? '+' : '\0');
    }
    return true;
  }

  void LexWord() {
    const char first = rest()[0];
    bool is_float = false;
    const bool behind_dot = position_ > 0 && source_[position_ - 1] == '.';
    if (const size_t number = NumberLength(rest(), !behind_dot, is_float); number > 0) {
      LexNumber(rest().substr(0, number), is_float);
    } else if (first == '"' || first == '\'') {
      LexString(first);
    } else if (const size_t name = NameLength(); name > 0) {
      Add(Token::Kind::kName, rest().substr(0, name));
      Advance(name);
    } else {
      LexOperator();
    }
  }

  size_t NameLength() const {
    size_t length = 0;
    for (size_t next = 0; next < rest().size(); length = next) {
      if (!IsWordCharacter(NextCodePoint(rest(), next))) {
        break;
      }
    }
    return length;
  }

  void LexNumber(absl::string_view text, bool is_float) {
    Token& token = Add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, text);
    if (is_float) {
      token.number = ParseFloatLiteral(text);
    } else if (const auto integer = ParseIntegerLiteral(text); integer.has_value()) {
      token.integer = *integer;
    } else {
      Fail("an integer has more than 63 bits");
    }
    Advance(text.size());
  }

  void LexString(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) {
      end += source_[end] == '\\' ? 2 : 1;
    }
    if (end >= source_.size()) {
      Fail("a string has no end");
      return;
    }
    const absl::string_view inside = source_.substr(position_ + 1, end - position_ - 1);
    const auto text = UnescapeString(inside);
    if (!text.has_value()) {
      Fail("a string has an escape that is malformed or not supported");
      return;
    }
    Add(Token::Kind::kString, *text);
    Advance(inside.size() + 2);
  }

  void LexOperator() {
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(), [&](auto candidate) {
      return absl::StartsWith(rest(), candidate);
    });
    if (found == kOperators.end()) {
      size_t end = 0;
      NextCodePoint(rest(), end);
      Fail(absl::StrCat("unexpected character '", rest().substr(0, end), "'"));
      return;
    }
    Balance((*found)[0]);
    Add(Token::Kind::kOperator, *found);
    Advance(found->size());
  }

  // Within brackets the end of a tag is none: {{ {'a': {}} }}.
  void Balance(char c) {
    constexpr absl::string_view kOpeners = "([{";
    constexpr absl::string_view kClosers = ")]}";
    if (const size_t opener = kOpeners.find(c); opener != npos) {
      open_ += kClosers[opener];
    } else if (kClosers.find(c) != npos) {
      if (open_.empty() || open_.back() != c) {
        Fail(absl::StrCat("unexpected '", absl::string_view(&c, 1), "'"));
        return;
      }
      open_.pop_back();
    }
  }

  const absl::string_view source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::string open_;  // The brackets that are still to be closed.
  std::vector<Token> tokens_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  const std::string text = NormalizeLineBreaks(source);
  return Lexer(text).Run();
}

}  // namespace nibble::jinja
