#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/text_format.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

class PercentFormatter {
 public:
  PercentFormatter(Run& run, absl::string_view format, const Value& value)
      : run_(run), format_(format), value_(value) {}

  Value Format() {
    while (position_ < format_.size() && run_.Step() &&
           run_.MayMake(static_cast<int64_t>(text_.size()))) {
      const size_t percent = std::min(format_.find('%', position_), format_.size());
      absl::StrAppend(&text_, format_.substr(position_, percent - position_));
      position_ = percent + 1;
      if (percent < format_.size()) {
        FormatField();
      }
    }
    const bool is_tuple = value_.Is(Flavor::kTuple);
    const size_t given = is_tuple ? value_.sequence()->items.size() : 1;
    if (next_ < given && (is_tuple || value_.map() == nullptr)) {
      run_.Fail("not all arguments of a format are used");
    }
    return MakeText(&run_, std::move(text_));
  }

 private:
  char Peek() const { return position_ < format_.size() ? format_[position_] : '\0'; }

  // A number in the format, or the next argument for a `*`.
  int64_t ReadCount() {
    if (Peek() == '*') {
      ++position_;
      const Value count = NextArgument();
      return count.is_integer() ? std::max<int64_t>(count.integer(), 0) : 0;
    }
    int64_t count = 0;
    while (absl::ascii_isdigit(static_cast<unsigned char>(Peek())) && count < kValueBytesMax) {
      count = count * 10 + (format_[position_++] - '0');
    }
    return count;
  }

  Value NextArgument() {
    if (named_.has_value()) {
      return *named_;
    }
    const size_t index = next_++;
    if (value_.Is(Flavor::kTuple)) {
      const auto& items = value_.sequence()->items;
      if (index < items.size()) {
        return items[index];
      }
    } else if (index == 0) {
      return value_;
    }
    run_.Fail("a format has more fields than arguments");
    return Value();
  }

  void ReadName() {
    named_.reset();
    if (Peek() != '(') {
      return;
    }
    const size_t end = format_.find(')', position_);
    const Map* map = value_.map();
    if (end == absl::string_view::npos || map == nullptr) {
      run_.Fail("a format with names wants a dict");
      return;
    }
    const Value* found = FindInMap(run_, *map, format_.substr(position_ + 1, end - position_ - 1));
    if (found == nullptr) {
      run_.Fail("a format names what its dict does not have");
    }
    named_ = found == nullptr ? Value() : *found;
    position_ = end + 1;
  }

  void FormatField() {
    ReadName();
    FieldStyle style;
    for (; absl::StrContains("-+ #0", Peek()) && Peek() != '\0'; ++position_) {
      const char flag = Peek();
      style.align = flag == '-' ? '<' : style.align;
      style.sign = flag == '+' || flag == ' ' ? flag : style.sign;
      style.alternate |= flag == '#';
      style.fill = flag == '0' ? "0" : style.fill;
    }
    style.width = ReadCount();
    if (Peek() == '.') {
      ++position_;
      style.precision = ReadCount();
    }
    style.type = Peek();
    ++position_;
    if (style.type == '%') {
      text_ += '%';
    } else {
      Append(style);
    }
  }

  void Append(FieldStyle style) {
    const Value argument = NextArgument();
    if (run_.failed()) {
      return;
    }
    if (style.type == 's' || style.type == 'r' || style.type == 'a') {
      std::string text = style.type == 's' ? ToText(run_, argument) : ToRepr(run_, argument);
      if (style.precision >= 0) {
        text.resize(ByteAt(text, style.precision));
      }
      style.fill = " ";
      text_ += Padded(run_, std::move(text), style, '>');
      return;
    }
    if (!absl::StrContains("diueEfFgGxXo", style.type) || style.type == '\0' ||
        !argument.is_number()) {
      run_.Fail(absl::StrCat("a '", argument.TypeName(), "' does not fit its field of a format"));
      return;
    }
    AppendNumber(argument, style);
  }

  void AppendNumber(Value argument, FieldStyle& style) {
    if (absl::StrContains("diu", style.type)) {
      style.type = 'd';
      if (argument.is_float()) {
        constexpr double kIntegerEnd = 9223372036854775808.0;  // 2^63
        if (!(argument.number() < kIntegerEnd && argument.number() >= -kIntegerEnd)) {
          run_.Fail("an integer has more than 63 bits");
          return;
        }
        argument = Value(static_cast<int64_t>(argument.number()));
      }
    }
    const char align = style.fill == "0" ? '=' : '>';
    text_ += Padded(run_, NumberInStyle(run_, argument, style), style, align);
  }

  Run& run_;
  const absl::string_view format_;
  const Value& value_;
  std::optional<Value> named_;
  size_t next_ = 0;  // Of the arguments without names.
  size_t position_ = 0;
  std::string text_;
};

}  // namespace

Value FormatPercent(Run& run, absl::string_view format, const Value& value) {
  return PercentFormatter(run, format, value).Format();
}

}  // namespace nibble::jinja
