#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/text_format.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

bool IsAlign(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

int64_t TakeCount(absl::string_view& spec) {
  int64_t count = 0;
  while (!spec.empty() && absl::ascii_isdigit(static_cast<unsigned char>(spec[0])) &&
         count < kValueBytesMax) {
    count = count * 10 + (spec[0] - '0');
    spec.remove_prefix(1);
  }
  return count;
}

bool TakeChar(absl::string_view& spec, char c) {
  return absl::ConsumePrefix(&spec, absl::string_view(&c, 1));
}

// [[fill]align][sign][#][0][width][,][.precision][type]
FieldStyle ParseStyle(Run& run, absl::string_view spec) {
  FieldStyle style;
  size_t fill = 0;
  if (!spec.empty()) {
    NextCodePoint(spec, fill);
  }
  if (fill > 0 && fill < spec.size() && IsAlign(spec[fill])) {
    style.fill = std::string(spec.substr(0, fill));
    style.align = spec[fill];
    spec.remove_prefix(fill + 1);
  } else if (!spec.empty() && IsAlign(spec[0])) {
    style.align = spec[0];
    spec.remove_prefix(1);
  }
  if (!spec.empty() && absl::StrContains("+- ", spec[0])) {
    style.sign = spec[0];
    spec.remove_prefix(1);
  }
  style.alternate = TakeChar(spec, '#');
  if (TakeChar(spec, '0') && style.align == 0) {
    style.fill = "0";
    style.align = '=';
  }
  style.width = TakeCount(spec);
  style.thousands = TakeChar(spec, ',');
  if (TakeChar(spec, '.')) {
    style.precision = TakeCount(spec);
  }
  if (spec.size() > 1) {
    run.Fail("a format's field has a specification that is malformed or not supported");
  } else if (!spec.empty()) {
    style.type = spec[0];
  }
  return style;
}

class BraceFormatter {
 public:
  BraceFormatter(Run& run, absl::string_view format, const Arguments& arguments, Lookup lookup)
      : run_(run), format_(format), arguments_(arguments), lookup_(lookup) {}

  Value Format() {
    while (!format_.empty() && run_.Step() && run_.MayMake(static_cast<int64_t>(text_.size()))) {
      const size_t brace = std::min(format_.find_first_of("{}"), format_.size());
      absl::StrAppend(&text_, format_.substr(0, brace));
      format_.remove_prefix(brace);
      if (absl::ConsumePrefix(&format_, "{{")) {
        text_ += '{';
      } else if (absl::ConsumePrefix(&format_, "}}")) {
        text_ += '}';
      } else if (!format_.empty()) {
        TakeField();
      }
    }
    return MakeText(&run_, std::move(text_));
  }

 private:
  void TakeField() {
    const size_t end = format_.find('}');
    if (format_[0] != '{' || end == absl::string_view::npos) {
      run_.Fail("a format has a brace without its other one");
      return;
    }
    absl::string_view field = format_.substr(1, end - 1);
    format_.remove_prefix(end + 1);
    absl::string_view spec;
    if (const size_t colon = field.find(':'); colon != absl::string_view::npos) {
      spec = field.substr(colon + 1);
      field = field.substr(0, colon);
    }
    char conversion = 0;
    if (const size_t mark = field.find('!'); mark != absl::string_view::npos) {
      conversion = mark + 2 == field.size() ? field[mark + 1] : '?';
      field = field.substr(0, mark);
    }
    Append(ValueOf(field), conversion, ParseStyle(run_, spec));
  }

  // The argument that a field begins with.
  Value FirstOf(absl::string_view name) {
    size_t index = next_;
    if (name.empty()) {
      ++next_;
    } else if (!absl::SimpleAtoi(name, &index)) {
      for (const auto& [candidate, value] : arguments_.named) {
        if (candidate == name) {
          return value;
        }
      }
      index = arguments_.positional.size();
    }
    if (index < arguments_.positional.size()) {
      return arguments_.positional[index];
    }
    run_.Fail("a format has a field without an argument");
    return Value();
  }

  Value ValueOf(absl::string_view field) {
    const size_t first = std::min(field.find_first_of(".["), field.size());
    Value value = FirstOf(field.substr(0, first));
    field.remove_prefix(first);
    while (!field.empty() && run_.Step()) {
      const bool is_attribute = field[0] == '.';
      const size_t end = is_attribute ? std::min(field.find_first_of(".[", 1), field.size())
                                      : std::min(field.find(']'), field.size() - 1);
      const absl::string_view name = field.substr(1, end - 1);
      int64_t index = 0;
      const bool is_index = !is_attribute && absl::SimpleAtoi(name, &index);
      value = lookup_(value, is_index ? Value(index) : MakeText(&run_, std::string(name)),
                      is_attribute);
      field.remove_prefix(is_attribute ? end : end + 1);
    }
    return value;
  }

  void Append(const Value& value, char conversion, FieldStyle style) {
    if (run_.failed()) {
      return;
    }
    if (conversion == 0 && value.is_number() && !value.is_bool()) {
      text_ += Padded(run_, NumberInStyle(run_, value, style), style, '>');
      return;
    }
    if ((conversion != 0 && conversion != 's' && conversion != 'r') ||
        (style.type != 0 && style.type != 's')) {
      run_.Fail("a format has a field that is malformed or not supported");
      return;
    }
    std::string text = conversion == 'r' ? ToRepr(run_, value) : ToText(run_, value);
    if (style.precision >= 0) {
      text.resize(ByteAt(text, style.precision));
    }
    text_ += Padded(run_, std::move(text), style, '<');
  }

  Run& run_;
  absl::string_view format_;
  const Arguments& arguments_;
  Lookup lookup_;
  size_t next_ = 0;
  std::string text_;
};

}  // namespace

Value FormatBraces(Run& run, absl::string_view format, const Arguments& arguments, Lookup lookup) {
  return BraceFormatter(run, format, arguments, lookup).Format();
}

}  // namespace nibble::jinja
