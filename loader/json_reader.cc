#include "loader/json_reader.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <system_error>

#include "absl/strings/charconv.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr size_t kExcerptBytes = 24;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

JsonReader::JsonReader(absl::string_view json, const JsonRules& rules)
    : json_(json), rules_(rules) {
  if (!IsUtf8(json)) {
    status_ = absl::DataLossError("JSON is not valid UTF-8");
  }
}

bool JsonReader::Refuse(absl::string_view message) {
  if (status_.ok()) {
    status_ = absl::DataLossError(absl::StrCat("at byte ", position_, ": ", message));
  }
  return false;
}

bool JsonReader::Fail(absl::string_view expected) {
  const absl::string_view rest = json_.substr(std::min(position_, json_.size()));
  return Refuse(absl::StrCat(
      "expected ", expected, ", found ",
      rest.empty() ? std::string("the end") : Printable(rest.substr(0, kExcerptBytes))));
}

void JsonReader::SkipSpace() {
  while (position_ < json_.size()) {
    const char c = json_[position_];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') {
      return;
    }
    ++position_;
  }
}

bool JsonReader::Consume(char c) {
  if (position_ < json_.size() && json_[position_] == c) {
    ++position_;
    return true;
  }
  return false;
}

JsonReader::Kind JsonReader::Peek() {
  SkipSpace();
  if (!status_.ok() || position_ >= json_.size()) {
    return Kind::kInvalid;
  }
  switch (json_[position_]) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kString;
    case 't':
    case 'f':
      return Kind::kBool;
    case 'n':
      return Kind::kNull;
    case 'N':
    case 'I':
      return rules_.allow_nan_and_infinity ? Kind::kNumber : Kind::kInvalid;
    default:
      return json_[position_] == '-' || IsDigit(json_[position_]) ? Kind::kNumber : Kind::kInvalid;
  }
}

bool JsonReader::Enter(char open, absl::string_view what) {
  SkipSpace();
  if (!status_.ok() || !Consume(open)) {
    return Fail(what);
  }
  if (begun_.size() >= static_cast<size_t>(rules_.depth_max)) {
    return Refuse(absl::StrCat("nested more than ", rules_.depth_max, " deep"));
  }
  begun_.push_back(false);
  return true;
}

bool JsonReader::EnterObject() { return Enter('{', "an object"); }

bool JsonReader::EnterArray() { return Enter('[', "an array"); }

// Steps over the comma to the next value of the innermost container, or out of it.
bool JsonReader::Next(char close) {
  if (!status_.ok()) {
    return false;
  }
  SkipSpace();
  if (Consume(close)) {
    begun_.pop_back();
    return false;
  }
  if (begun_.back() && !Consume(',')) {
    return Fail(close == '}' ? "',' or '}'" : "',' or ']'");
  }
  begun_.back() = true;
  return true;
}

bool JsonReader::NextMember(std::string& key) {
  if (!Next('}') || !ReadString(key)) {
    return false;
  }
  SkipSpace();
  return Consume(':') || Fail("':'");
}

bool JsonReader::NextElement() { return Next(']'); }

int64_t JsonReader::NumbersAhead() const {
  const absl::string_view rest = json_.substr(std::min(position_, json_.size()));
  const size_t end = rest.find(']');
  if (end == absl::string_view::npos) {
    return 0;
  }
  const auto last = rest.begin() + static_cast<std::ptrdiff_t>(end);
  return std::count(rest.begin(), last, ',') + 1;
}

bool JsonReader::ReadString(std::string& value) {
  SkipSpace();
  if (!status_.ok() || !Consume('"')) {
    return Fail("a string");
  }
  value.clear();
  for (;;) {
    size_t end = position_;
    while (end < json_.size() && json_[end] != '"' && json_[end] != '\\' &&
           static_cast<unsigned char>(json_[end]) >= 0x20) {
      ++end;
    }
    value.append(json_.data() + position_, end - position_);
    position_ = end;
    if (Consume('"')) {
      return true;
    }
    if (!Consume('\\')) {
      return Fail("the string to go on without raw control characters");
    }
    if (!ConsumeEscape(value)) {
      return false;
    }
  }
}

bool JsonReader::ConsumeEscape(std::string& value) {
  constexpr absl::string_view kLetters = "\"\\/bfnrt";
  constexpr absl::string_view kMeanings = "\"\\/\b\f\n\r\t";
  const size_t letter = position_ < json_.size() ? kLetters.find(json_[position_]) : kLetters.npos;
  if (letter != kLetters.npos) {
    ++position_;
    value += kMeanings[letter];
    return true;
  }
  uint32_t code = 0;
  if (!Consume('u') || !ConsumeHex4(code)) {
    return Fail("an escape");
  }
  if (code >= 0xD800 && code <= 0xDFFF) {
    uint32_t low = 0;
    const bool paired = code < 0xDC00 && Consume('\\') && Consume('u') && ConsumeHex4(low) &&
                        low >= 0xDC00 && low <= 0xDFFF;
    if (!paired) {
      return Fail("a pair of surrogates");
    }
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  AppendUtf8(code, value);
  return true;
}

bool JsonReader::ConsumeHex4(uint32_t& code) {
  code = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = position_ < json_.size() ? json_[position_] : '\0';
    uint32_t digit = 0;
    if (IsDigit(c)) {
      digit = static_cast<uint32_t>(c - '0');
    } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
      digit = static_cast<uint32_t>((c | 0x20) - 'a') + 10;
    } else {
      return false;
    }
    code = code << 4 | digit;
    ++position_;
  }
  return true;
}

bool JsonReader::ConsumeWord(absl::string_view word) {
  if (!absl::StartsWith(json_.substr(position_), word)) {
    return false;
  }
  position_ += word.size();
  return true;
}

bool JsonReader::ReadBool(bool& value) {
  SkipSpace();
  if (!status_.ok()) {
    return false;
  }
  value = ConsumeWord("true");
  return value || ConsumeWord("false") || Fail("true or false");
}

bool JsonReader::ConsumeDigits() {
  const size_t begin = position_;
  while (position_ < json_.size() && IsDigit(json_[position_])) {
    ++position_;
  }
  return position_ > begin;
}

// -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
bool JsonReader::ConsumeNumber() {
  Consume('-');
  if (!Consume('0') && !ConsumeDigits()) {
    return false;
  }
  if (Consume('.') && !ConsumeDigits()) {
    return false;
  }
  if (Consume('e') || Consume('E')) {
    if (!Consume('+')) {
      Consume('-');
    }
    return ConsumeDigits();
  }
  return true;
}

bool JsonReader::ReadUnsigned(uint64_t& value) {
  SkipSpace();
  const size_t begin = position_;
  if (!status_.ok() || !ConsumeNumber()) {
    position_ = begin;
    return Fail("an unsigned integer");
  }
  const absl::string_view token = json_.substr(begin, position_ - begin);
  const bool digits = std::all_of(token.begin(), token.end(), IsDigit);
  if (!digits || !absl::SimpleAtoi(token, &value)) {
    position_ = begin;
    return Fail("an unsigned integer of at most 64 bits");
  }
  return true;
}

bool JsonReader::ReadDouble(double& value) {
  SkipSpace();
  const size_t begin = position_;
  if (!status_.ok() || !ConsumeNumber()) {
    position_ = begin;
    return Fail("a number");
  }
  const auto parsed = absl::from_chars(json_.data() + begin, json_.data() + position_, value);
  if (parsed.ec == std::errc::result_out_of_range && std::abs(value) > 1) {
    position_ = begin;
    return Fail("a number within the range of a double");
  }
  return true;
}

bool JsonReader::SkipNumber() {
  if (rules_.allow_nan_and_infinity &&
      (ConsumeWord("NaN") || ConsumeWord("Infinity") || ConsumeWord("-Infinity"))) {
    return true;
  }
  double ignored = 0;
  return ReadDouble(ignored);
}

bool JsonReader::ReadText(absl::string_view& text) {
  Peek();  // Skips the space before it.
  const size_t begin = position_;
  if (!SkipValue()) {
    return false;
  }
  text = json_.substr(begin, position_ - begin);
  return true;
}

bool JsonReader::SkipValue() {
  switch (Peek()) {
    case Kind::kObject:
      EnterObject();
      while (NextMember(skipped_)) {
        SkipValue();
      }
      return status_.ok();
    case Kind::kArray:
      EnterArray();
      while (NextElement()) {
        SkipValue();
      }
      return status_.ok();
    case Kind::kString:
      return ReadString(skipped_);
    case Kind::kNumber:
      return SkipNumber();
    case Kind::kBool: {
      bool ignored = false;
      return ReadBool(ignored);
    }
    case Kind::kNull:
      return ConsumeWord("null") || Fail("a value");
    case Kind::kInvalid:
      break;
  }
  return Fail("a value");
}

bool JsonReader::Finish() {
  SkipSpace();
  return status_.ok() && (position_ == json_.size() || Fail("nothing more"));
}

}  // namespace nibble
