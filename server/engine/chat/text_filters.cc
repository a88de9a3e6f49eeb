// Filters that make strings.

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/engine/chat/filters.h"
#include "server/engine/chat/json_text.h"
#include "server/engine/chat/method.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/text_format.h"
#include "server/engine/chat/text_search.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

// Calls the method of this name of the input as text.
Value CallTextMethod(Interpreter& interpreter, absl::string_view method, const Value& input,
                     const Arguments& arguments) {
  const Value text = ToTextValue(interpreter.run(), input);
  if (text.text() == nullptr) {
    return Value();
  }
  return LikeIts(interpreter.run(), text, FindMethod(text, method)(interpreter, text, arguments));
}

Value Upper(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return CallTextMethod(interpreter, "upper", input, arguments);
}
Value Lower(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return CallTextMethod(interpreter, "lower", input, arguments);
}
Value CapitalizeText(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return CallTextMethod(interpreter, "capitalize", input, arguments);
}
Value Trim(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return CallTextMethod(interpreter, "strip", input, arguments);
}

// Unlike str.title(), at white space, hyphens and opening brackets alone.
Value Title(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  const std::string text = ToText(run, input);
  if (!run.StepLookups(text.size()) || !run.MayMake(3 * static_cast<int64_t>(text.size()))) {
    return Value();
  }
  const auto word_of = [&](size_t begin, size_t end) {
    const absl::string_view word = absl::string_view(text).substr(begin, end - begin);
    const size_t first = ByteAt(word, 1);
    return absl::StrCat(ToUpper(word.substr(0, first)), ToLower(word.substr(first)));
  };
  std::string title;
  size_t word = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = NextCodePoint(text, position);
    if (IsSpace(c) || (c < 0x80 && absl::StrContains("-({[<", static_cast<char>(c)))) {
      title += word_of(word, begin);
      title.append(text, begin, position - begin);
      word = position;
    }
  }
  return MakeText(&run, title + word_of(word, text.size()));
}

Value Replace(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "replace", arguments, {"old", "new", "count"}, 2);
  if (run.failed()) {
    return Value();
  }
  const int64_t count = bound.GetSome(2) == nullptr ? -1 : bound.Integer(2, -1);
  return ReplaceText(run, ToText(run, input), ToText(run, bound.Any(0)), ToText(run, bound.Any(1)),
                     count);
}

Value String(Interpreter& interpreter, const Value& input, const Arguments&) {
  return ToTextValue(interpreter.run(), input);
}

Value Format(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  Value values;
  if (arguments.named.empty()) {
    values = MakeSequence(&run, Flavor::kTuple, arguments.positional);
  } else {
    Pairs entries;
    for (const auto& [name, value] : arguments.named) {
      entries.emplace_back(MakeText(&run, name), value);
    }
    values = MakeMap(run, std::move(entries));
    if (!arguments.positional.empty()) {
      run.Fail("format takes arguments with names or without, not both");
    }
  }
  return run.failed() ? Value() : FormatPercent(run, ToText(run, input), values);
}

Value Safe(Interpreter& interpreter, const Value& input, const Arguments&) {
  return MakeText(&interpreter.run(), ToText(interpreter.run(), input), true);
}

Value ForceEscape(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  return MakeText(&run, EscapedForHtml(run, ToText(run, input)), true);
}

Value Escape(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const bool is_markup = input.text() != nullptr && input.text()->is_markup;
  return is_markup ? input : ForceEscape(interpreter, input, arguments);
}

Value Indent(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "indent", arguments, {"width", "first", "blank"});
  const bool is_text = bound.Get(0) != nullptr && bound.Get(0)->text() != nullptr;
  const int64_t width = is_text ? 0 : std::max<int64_t>(bound.Integer(0, 4), 0);
  const std::string text = ToText(run, input) + "\n";
  const std::vector<absl::string_view> lines = LinesOf(run, text, false);
  int64_t bytes = 0;
  const int64_t indent_bytes =
      is_text ? static_cast<int64_t>(bound.Get(0)->text()->bytes.size()) : width;
  if (__builtin_mul_overflow(indent_bytes, static_cast<int64_t>(lines.size()), &bytes) ||
      !run.MayMake(bytes) || !run.StepLookups(text.size())) {
    run.MayMake(INT64_MAX);
    return Value();
  }
  const std::string indent =
      is_text ? bound.Get(0)->text()->bytes : std::string(static_cast<size_t>(width), ' ');
  std::string result = bound.Truth(1, false) ? indent : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      absl::StrAppend(&result, "\n",
                      !lines[i].empty() || bound.Truth(2, false) ? indent : std::string());
    }
    absl::StrAppend(&result, lines[i]);
  }
  return MakeText(&run, std::move(result));
}

Value Truncate(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "truncate", arguments, {"length", "killwords", "end", "leeway"});
  const std::string text = ToText(run, input);
  const std::string end = bound.Text(2, "...");
  const int64_t length = bound.Integer(0, 255);
  const int64_t leeway = bound.GetSome(3) == nullptr ? 5 : bound.Integer(3, 5);
  const int64_t end_length = CodePointCount(end);
  if (length < end_length || leeway < 0) {
    run.Fail("truncate wants a length of at least its end, and a leeway of at least 0");
  }
  if (!run.StepLookups(text.size()) || CodePointCount(text) - leeway <= length) {
    return MakeText(&run, text);
  }
  absl::string_view kept = absl::string_view(text).substr(0, ByteAt(text, length - end_length));
  if (!bound.Truth(1, false)) {
    kept = kept.substr(0, kept.rfind(' '));
  }
  return MakeText(&run, absl::StrCat(kept, end));
}

Value CenterText(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Arguments width = arguments;
  if (width.positional.empty() && width.named.empty()) {
    width.positional.emplace_back(int64_t{80});
  }
  return CallTextMethod(interpreter, "center", input, width);
}

Value WordCount(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  const std::string text = ToText(run, input);
  run.StepLookups(text.size());
  int64_t count = 0;
  bool in_word = false;
  for (size_t position = 0; position < text.size();) {
    const bool is_word = IsWordCharacter(NextCodePoint(text, position));
    count += is_word && !in_word ? 1 : 0;
    in_word = is_word;
  }
  return Value(count);
}

void AppendUrlQuoted(std::string& url, absl::string_view text, bool for_query) {
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("_.-~", c) ||
        (c == '/' && !for_query)) {
      url += c;
    } else if (c == ' ' && for_query) {
      url += '+';
    } else {
      absl::StrAppend(&url, "%",
                      absl::AsciiStrToUpper(
                          absl::StrCat(absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2))));
    }
  }
}

Value UrlEncode(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  std::string url;
  const auto append = [&](const Value& value, bool for_query) {
    const std::string text = ToText(run, value);
    if (run.StepLookups(text.size()) &&
        run.MayMake(static_cast<int64_t>(url.size() + 3 * text.size()))) {
      AppendUrlQuoted(url, text, for_query);
    }
  };
  if (input.text() != nullptr || (input.map() == nullptr && input.sequence() == nullptr)) {
    append(input, false);
    return MakeText(&run, std::move(url));
  }
  for (const Value& entry : Items(run, input)) {
    const Items pair(run, input.map() == nullptr ? entry : Value());
    if (input.map() == nullptr && pair.size() != 2) {
      run.Fail("urlencode wants pairs");
    }
    if (run.failed()) {
      break;
    }
    url += url.empty() ? "" : "&";
    append(input.map() != nullptr ? entry : pair[0], true);
    url += '=';
    append(input.map() != nullptr ? *FindInMap(run, *input.map(), entry) : pair[1], true);
  }
  return MakeText(&run, std::move(url));
}

// As transformers defines it, not as Jinja: json.dumps without escapes for HTML.
Value ToJsonText(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "tojson", arguments,
                       {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii_only = bound.Truth(0, false);
  style.sort_keys = bound.Truth(3, false);
  std::string indent;
  if (const Value* given = bound.GetSome(1); given != nullptr) {
    const int64_t width = given->text() != nullptr ? 0 : bound.Integer(1, 0);
    if (!run.MayMake(width)) {
      return Value();
    }
    indent = given->text() != nullptr
                 ? given->text()->bytes
                 : std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    style.indent = &indent;
    style.item_separator = ",";
  }
  if (const Value* separators = bound.GetSome(2); separators != nullptr) {
    const Items pair(run, *separators);
    if (pair.size() != 2 || pair[0].text() == nullptr || pair[1].text() == nullptr) {
      run.Fail("tojson wants two strings as separators");
      return Value();
    }
    style.item_separator = pair[0].text()->bytes;
    style.key_separator = pair[1].text()->bytes;
  }
  return run.failed() ? Value() : MakeText(&run, ToJson(run, input, style));
}

using NamedFilter = std::pair<absl::string_view, FilterFunction>;

constexpr std::array<NamedFilter, 18> kFilters = {{{"trim", Trim},
                                                   {"upper", Upper},
                                                   {"lower", Lower},
                                                   {"title", Title},
                                                   {"capitalize", CapitalizeText},
                                                   {"replace", Replace},
                                                   {"string", String},
                                                   {"safe", Safe},
                                                   {"format", Format},
                                                   {"escape", Escape},
                                                   {"e", Escape},
                                                   {"forceescape", ForceEscape},
                                                   {"indent", Indent},
                                                   {"truncate", Truncate},
                                                   {"center", CenterText},
                                                   {"wordcount", WordCount},
                                                   {"urlencode", UrlEncode},
                                                   {"tojson", ToJsonText}}};

}  // namespace

FilterFunction FindTextFilter(absl::string_view name) {
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(),
                                   [&](const NamedFilter& filter) { return filter.first == name; });
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
