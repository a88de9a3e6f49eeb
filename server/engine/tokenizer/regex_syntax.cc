#include "server/engine/tokenizer/regex_syntax.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/regex_set.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

constexpr absl::string_view kCallout = "(?C1)";
constexpr size_t kNoAtom = static_cast<size_t>(-1);

// The quantifiers {n} {n,} {,m} {n,m}.
struct Interval {
  absl::string_view low;
  absl::string_view high;
  bool fixed = false;  // {n}
  size_t bytes = 0;    // 0: these are no interval but characters.
};

absl::string_view Digits(absl::string_view text) {
  size_t count = 0;
  while (count < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[count]))) {
    ++count;
  }
  return text.substr(0, count);
}

Interval ParseInterval(absl::string_view text) {
  Interval interval;
  interval.low = Digits(text.substr(1));
  size_t position = 1 + interval.low.size();
  if (text.substr(position, 1) == ",") {
    interval.high = Digits(text.substr(position + 1));
    position += 1 + interval.high.size();
  } else {
    interval.fixed = true;
  }
  if (text.substr(position, 1) == "}" && !(interval.low.empty() && interval.high.empty())) {
    interval.bytes = position + 1;
  }
  return interval;
}

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : pattern_(pattern), sets_(pattern, position_) {}

  absl::StatusOr<std::string> Translate() {
    while (position_ < pattern_.size()) {
      if (absl::Status status = TranslateNext(); !status.ok()) {
        return status;
      }
    }
    if (groups_.size() != 1) {
      return absl::InvalidArgumentError("expected ')', found the end of the expression");
    }
    output_.append(groups_.back().options_open, ')');
    return std::move(output_);
  }

 private:
  struct Group {
    size_t begin = 0;         // In the output.
    size_t options_open = 0;  // Groups of ours for options that reach to the end of this one.
  };

  absl::string_view Rest() const { return pattern_.substr(position_); }
  bool Follows(absl::string_view text) const { return absl::StartsWith(Rest(), text); }

  absl::Status TranslateNext() {
    switch (pattern_[position_]) {
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '[': {
        const auto set = sets_.ReadBrackets();
        return set.ok() ? AddAtom(set->ToPcre2()) : set.status();
      }
      case '\\':
        return TranslateEscape();
      case '|':
      case '^':
        ++position_;
        output_ += pattern_[position_ - 1];
        atom_ = kNoAtom;
        return absl::OkStatus();
      case '$':
      case '.':
        ++position_;
        return AddAtom(pattern_.substr(position_ - 1, 1));
      case '*':
      case '+':
      case '?':
        return NothingToRepeat();
      case '{':
        if (ParseInterval(Rest()).bytes > 0) {
          return NothingToRepeat();
        }
        ++position_;
        return AddLiteral("{");
      default: {
        const size_t length = Utf8Length(pattern_[position_]);
        position_ += length;
        return AddLiteral(pattern_.substr(position_ - length, length));
      }
    }
  }

  absl::Status NothingToRepeat() const {
    return absl::InvalidArgumentError(
        absl::StrCat("expected something to repeat before '", pattern_.substr(position_, 1), "'"));
  }

  absl::Status AddLiteral(absl::string_view character) {
    const bool symbol =
        character.size() == 1 && absl::ascii_ispunct(static_cast<unsigned char>(character[0]));
    return AddAtom(absl::StrCat(symbol ? "\\" : "", character));
  }

  // Appends `text`, which matches as a whole, and the quantifiers that follow.
  absl::Status AddAtom(absl::string_view text) {
    atom_ = output_.size();
    output_.append(text.data(), text.size());
    return TranslateQuantifiers();
  }

  absl::Status TranslateQuantifiers() {
    bool quantified = false;
    while (position_ < pattern_.size()) {
      const char c = pattern_[position_];
      const Interval interval = c == '{' ? ParseInterval(Rest()) : Interval();
      if (c != '*' && c != '+' && c != '?' && interval.bytes == 0) {
        break;
      }
      if (quantified) {
        Wrap();
      }
      quantified = true;
      if (interval.bytes > 0) {
        AppendInterval(interval);
      } else {
        ++position_;
        output_ += c;
        if (Follows("?") || Follows("+")) {  // Lazy; possessive.
          output_ += pattern_[position_++];
        }
      }
    }
    if (quantified) {
      output_.append(kCallout.data(), kCallout.size());
    }
    return absl::OkStatus();
  }

  void AppendInterval(const Interval& interval) {
    position_ += interval.bytes;
    absl::StrAppend(&output_, "{", interval.low.empty() ? "0" : interval.low);
    if (!interval.fixed) {
      absl::StrAppend(&output_, ",", interval.high);
    }
    output_ += '}';
    if (Follows("?") && !interval.fixed) {
      output_ += '?';
      ++position_;
    }
  }

  // What was repeated is repeated again.
  void Wrap() {
    output_.insert(atom_, "(?:");
    output_ += ')';
  }

  absl::Status OpenGroup() {
    if (Follows("(*")) {
      return absl::UnimplementedError("a verb, (*");
    }
    if (Follows("(?#")) {
      const size_t end = pattern_.find(')', position_);
      position_ = end == pattern_.npos ? pattern_.size() : end + 1;
      return absl::OkStatus();
    }
    for (const absl::string_view opening : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (Follows(opening)) {
        return BeginGroup(opening, opening.size());
      }
    }
    if (!Follows("(?")) {
      return BeginGroup("(?:", 1);
    }
    if (Follows("(?<") || Follows("(?'")) {
      const size_t end = pattern_.find(Follows("(?<") ? '>' : '\'', position_ + 3);
      if (end == pattern_.npos) {
        return absl::InvalidArgumentError("expected the end of a group's name");
      }
      return BeginGroup("(?:", end + 1 - position_);
    }
    return OpenOptions();
  }

  absl::Status BeginGroup(absl::string_view opening, size_t bytes) {
    groups_.push_back({.begin = output_.size()});
    absl::StrAppend(&output_, opening, kCallout);
    position_ += bytes;
    atom_ = kNoAtom;
    return absl::OkStatus();
  }

  // (?i) and (?i: and the like. Oniguruma's m is PCRE2's s.
  absl::Status OpenOptions() {
    std::string opening = "(?";
    size_t position = position_ + 2;
    for (; position < pattern_.size(); ++position) {
      const char c = pattern_[position];
      if (c == ':' || c == ')') {
        break;
      }
      if (c != 'i' && c != 'm' && c != '-') {
        return absl::UnimplementedError(
            absl::StrCat("the group ", Printable(Rest().substr(0, position + 1 - position_))));
      }
      opening += c == 'm' ? 's' : c;
    }
    if (position == pattern_.size()) {
      return absl::InvalidArgumentError("expected ':' or ')' after the options of a group");
    }
    opening += ':';
    const size_t bytes = position + 1 - position_;
    if (pattern_[position] == ':') {
      return BeginGroup(opening, bytes);
    }
    ++groups_.back().options_open;
    output_ += opening;
    position_ += bytes;
    atom_ = kNoAtom;
    return absl::OkStatus();
  }

  absl::Status CloseGroup() {
    if (groups_.size() == 1) {
      return absl::InvalidArgumentError("expected no ')' without its '('");
    }
    ++position_;
    output_.append(groups_.back().options_open + 1, ')');
    atom_ = groups_.back().begin;
    groups_.pop_back();
    return TranslateQuantifiers();
  }

  absl::Status TranslateEscape() {
    CharacterSet set;
    const auto is_set = sets_.ReadSetEscape(/*in_brackets=*/false, set);
    if (!is_set.ok()) {
      return is_set.status();
    }
    if (*is_set) {
      return AddAtom(set.ToPcre2());
    }
    const char letter = pattern_[position_ + 1];
    if (absl::string_view("AZzGKRXN").find(letter) != absl::string_view::npos) {
      position_ += 2;
      return AddAtom(pattern_.substr(position_ - 2, 2));
    }
    if (letter == 'O') {
      position_ += 2;
      return AddAtom("(?s:.)");
    }
    if (letter == 'b' || letter == 'B') {
      position_ += 2;
      const std::string word = WordSet().ToPcre2();
      return AddAtom(
          letter == 'b'
              ? absl::StrCat("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))")
              : absl::StrCat("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))"));
    }
    if (letter == 'y' || letter == 'Y') {
      return absl::UnimplementedError("the escape \\y");
    }
    const auto code = sets_.ReadCharacterEscape();
    return code.ok() ? AddAtom(absl::StrCat("\\x{", absl::Hex(*code), "}")) : code.status();
  }

  const absl::string_view pattern_;
  size_t position_ = 0;
  CharacterSetReader sets_;
  std::string output_;
  size_t atom_ = kNoAtom;  // Where in the output the last thing that can be repeated begins.
  std::vector<Group> groups_ = std::vector<Group>(1);
};

}  // namespace

absl::StatusOr<std::string> ToPcre2Syntax(absl::string_view pattern) {
  if (pattern.size() > kRegexBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected at most ", kRegexBytesMax, " bytes, found ", pattern.size()));
  }
  if (!IsUtf8(pattern)) {
    return absl::InvalidArgumentError("expected UTF-8");
  }
  return Translator(pattern).Translate();
}

}  // namespace nibble
