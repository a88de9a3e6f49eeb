#include "server/engine/chat/python_text.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "loader/python_json.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

// repr() writes at most ten bytes for one of a string: \x00 for a control character, \U000e0001 for
// the four of a code point.
constexpr int64_t kReprBytesPerByte = 4;

void AppendEscape(std::string& repr, char32_t code_point) {
  if (code_point == '\n') {
    repr += "\\n";
  } else if (code_point == '\r') {
    repr += "\\r";
  } else if (code_point == '\t') {
    repr += "\\t";
  } else if (code_point < 0x100) {
    absl::StrAppend(&repr, "\\x", absl::Hex(static_cast<uint32_t>(code_point), absl::kZeroPad2));
  } else if (code_point < 0x10000) {
    absl::StrAppend(&repr, "\\u", absl::Hex(static_cast<uint32_t>(code_point), absl::kZeroPad4));
  } else {
    absl::StrAppend(&repr, "\\U", absl::Hex(static_cast<uint32_t>(code_point), absl::kZeroPad8));
  }
}

// Double quotes only where that saves escaping single ones.
void AppendQuoted(std::string& repr, absl::string_view text) {
  const bool has_single = text.find('\'') != absl::string_view::npos;
  const char quote = has_single && text.find('"') == absl::string_view::npos ? '"' : '\'';
  repr += quote;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t code_point = NextCodePoint(text, position);
    if (code_point == static_cast<char32_t>(quote) || code_point == '\\') {
      repr += '\\';
      repr += static_cast<char>(code_point);
    } else if (code_point >= 0x20 && code_point < 0x7F) {
      repr += static_cast<char>(code_point);
    } else if (IsPrintable(code_point)) {
      absl::StrAppend(&repr, text.substr(begin, position - begin));
    } else {
      AppendEscape(repr, code_point);
    }
  }
  repr += quote;
}

void AppendRepr(Run& run, const Value& value, int depth, std::string& repr);

void AppendItems(Run& run, const std::vector<Value>& items, int depth, std::string& repr) {
  absl::string_view separator = "";
  for (const Value& item : items) {
    if (run.failed()) {
      return;
    }
    absl::StrAppend(&repr, separator);
    AppendRepr(run, item, depth + 1, repr);
    separator = ", ";
  }
}

void AppendSequence(Run& run, const Sequence& sequence, int depth, std::string& repr) {
  switch (sequence.flavor) {
    case Flavor::kList:
      repr += '[';
      AppendItems(run, sequence.items, depth, repr);
      repr += ']';
      return;
    case Flavor::kTuple:
    case Flavor::kGroup:
      repr += '(';
      AppendItems(run, sequence.items, depth, repr);
      repr += sequence.items.size() == 1 ? ",)" : ")";
      return;
    case Flavor::kRange:
      repr += sequence.shown_as;
      return;
    case Flavor::kGenerator:
      repr += "<generator object>";
      return;
    case Flavor::kKeys:
    case Flavor::kValues:
    case Flavor::kItems:
      repr += sequence.flavor == Flavor::kKeys     ? "dict_keys(["
              : sequence.flavor == Flavor::kValues ? "dict_values(["
                                                   : "dict_items([";
      AppendItems(run, sequence.items, depth, repr);
      repr += "])";
      return;
  }
}

void AppendMap(Run& run, const Map& map, int depth, std::string& repr) {
  repr += '{';
  absl::string_view separator = "";
  for (const auto& [key, value] : map.entries) {
    if (run.failed()) {
      return;
    }
    absl::StrAppend(&repr, separator);
    AppendRepr(run, key, depth + 1, repr);
    repr += ": ";
    AppendRepr(run, value, depth + 1, repr);
    separator = ", ";
  }
  repr += '}';
}

void AppendNamespace(Run& run, const Namespace& attributes, int depth, std::string& repr) {
  repr += "<Namespace {";
  absl::string_view separator = "";
  for (const auto& [name, value] : attributes.attributes) {
    if (run.failed()) {
      return;
    }
    absl::StrAppend(&repr, separator);
    AppendQuoted(repr, name);
    repr += ": ";
    AppendRepr(run, value, depth + 1, repr);
    separator = ", ";
  }
  repr += "}>";
}

void AppendRepr(Run& run, const Value& value, int depth, std::string& repr) {
  // A namespace may contain itself, so that depth is not bounded by what a value knows of itself.
  if (depth > 2 * kValueDepthMax) {
    run.Fail("a value is too deep to be shown");
  }
  const int64_t text_bytes =
      value.text() == nullptr ? 0 : static_cast<int64_t>(value.text()->bytes.size());
  if (!run.Step() || !run.StepLookups(static_cast<size_t>(text_bytes)) ||
      !run.MayMake(static_cast<int64_t>(repr.size()) + kReprBytesPerByte * text_bytes)) {
    return;
  }
  if (value.text() != nullptr) {
    AppendQuoted(repr, value.text()->bytes);
  } else if (value.sequence() != nullptr) {
    AppendSequence(run, *value.sequence(), depth, repr);
  } else if (value.map() != nullptr) {
    AppendMap(run, *value.map(), depth, repr);
  } else if (value.attributes() != nullptr) {
    AppendNamespace(run, *value.attributes(), depth, repr);
  } else if (value.object() != nullptr) {
    repr += value.object()->Shown();
  } else if (value.is_bool()) {
    repr += value.integer() != 0 ? "True" : "False";
  } else if (value.is_integer()) {
    absl::StrAppend(&repr, value.integer());
  } else if (value.is_float()) {
    repr += FloatToText(value.number());
  } else {
    repr += value.is_none() ? "None" : "Undefined";
  }
}

}  // namespace

std::string FloatToText(double value) {
  if (std::isnan(value)) {
    return "nan";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-inf" : "inf";
  }
  return PythonNumber(value);
}

Value LikeIts(Run& run, const Value& original, const Value& made) {
  const bool differs = original.text() != nullptr && made.text() != nullptr &&
                       original.text()->is_markup && !made.text()->is_markup;
  return differs ? MakeText(&run, made.text()->bytes, true) : made;
}

std::string EscapedForHtml(Run& run, absl::string_view text) {
  constexpr int64_t kEscapeBytesMax = 5;  // "&#34;"
  if (!run.StepLookups(text.size()) ||
      !run.MayMake(kEscapeBytesMax * static_cast<int64_t>(text.size()))) {
    return "";
  }
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}});
}

std::string ToRepr(Run& run, const Value& value) {
  std::string repr;
  AppendRepr(run, value, 0, repr);
  return repr;
}

std::string ToText(Run& run, const Value& value) {
  if (value.text() != nullptr) {
    return value.text()->bytes;
  }
  return value.is_undefined() ? "" : ToRepr(run, value);
}

Value ToTextValue(Run& run, const Value& value) {
  return value.text() != nullptr ? value : MakeText(&run, ToText(run, value));
}

}  // namespace nibble::jinja
