// Methods that make a string of a string, or say what kind of characters it has.

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/engine/chat/arguments.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/method.h"
#include "server/engine/chat/text_format.h"
#include "server/engine/chat/text_search.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

// A method without arguments that maps a string to a string.
template <std::string (*map)(absl::string_view)>
Value Mapped(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "a method that maps a string", arguments, {});
  const std::string& text = receiver.text()->bytes;
  // A mapped letter may take three times the bytes.
  if (!run.StepLookups(text.size()) || !run.MayMake(3 * static_cast<int64_t>(text.size()))) {
    return Value();
  }
  return MakeText(&run, map(text));
}

enum class Side { kLeft, kRight, kBoth };

template <Side side>
Value Strip(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "strip", arguments, {"chars"});
  const std::string characters = bound.GetSome(0) == nullptr ? "" : bound.Text(0, "");
  const absl::string_view view = characters;
  const absl::string_view* set = bound.GetSome(0) == nullptr ? nullptr : &view;
  absl::string_view text = receiver.text()->bytes;
  const size_t bytes = text.size();
  if (side != Side::kRight) {
    text = StripLeft(text, set);
  }
  if (side != Side::kLeft) {
    text = StripRight(text, set);
  }
  // Each stripped character was compared with all of the set.
  run.StepLookups((bytes - text.size() + 2) * (characters.size() + 1));
  return text.size() == bytes ? receiver : MakeText(&run, std::string(text));
}

Value Replace(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "replace", arguments, {"old", "new", "count"}, 2);
  return ReplaceText(run, receiver.text()->bytes, bound.Text(0, ""), bound.Text(1, ""),
                     bound.Integer(2, -1));
}

Value RemovePrefix(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  BoundArguments bound(interpreter.run(), "removeprefix", arguments, {"prefix"}, 1);
  const std::string prefix = bound.Text(0, "");
  absl::string_view text = receiver.text()->bytes;
  return absl::ConsumePrefix(&text, prefix) ? MakeText(&interpreter.run(), std::string(text))
                                            : receiver;
}

Value RemoveSuffix(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  BoundArguments bound(interpreter.run(), "removesuffix", arguments, {"suffix"}, 1);
  const std::string suffix = bound.Text(0, "");
  absl::string_view text = receiver.text()->bytes;
  return absl::ConsumeSuffix(&text, suffix) ? MakeText(&interpreter.run(), std::string(text))
                                            : receiver;
}

template <char align>
Value Justify(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "a method that fills a string up", arguments, {"width", "fillchar"}, 1);
  FieldStyle style;
  style.width = bound.Integer(0, 0);
  style.fill = bound.Text(1, " ");
  style.align = align;
  if (CodePointCount(style.fill) != 1) {
    run.Fail("a string is filled up with one character");
    return Value();
  }
  return MakeText(&run, Padded(run, receiver.text()->bytes, style, '<'));
}

// Python puts the odd one on the left where both lengths differ so.
Value Center(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "center", arguments, {"width", "fillchar"}, 1);
  const int64_t width = bound.Integer(0, 0);
  const int64_t missing = std::max<int64_t>(width - receiver.text()->code_points, 0);
  FieldStyle left;
  left.fill = bound.Text(1, " ");
  left.align = '>';
  left.width = width - (missing - (missing / 2 + (missing & width & 1)));
  FieldStyle both = left;
  both.align = '<';
  both.width = width;
  if (CodePointCount(left.fill) != 1) {
    run.Fail("a string is filled up with one character");
    return Value();
  }
  return MakeText(&run, Padded(run, Padded(run, receiver.text()->bytes, left, '>'), both, '<'));
}

Value ZeroFill(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "zfill", arguments, {"width"}, 1);
  FieldStyle style;
  style.width = bound.Integer(0, 0);
  style.fill = "0";
  style.align = '=';
  return MakeText(&run, Padded(run, receiver.text()->bytes, style, '='));
}

// Whether a string has characters and all of them are `is`.
template <bool (*is)(char32_t)>
Value All(Interpreter& interpreter, const Value& receiver, const Arguments&) {
  const std::string& text = receiver.text()->bytes;
  interpreter.run().StepLookups(text.size());
  for (size_t position = 0; position < text.size();) {
    if (!is(NextCodePoint(text, position))) {
      return Value(false);
    }
  }
  return Value(!text.empty());
}

bool IsAlphanumeric(char32_t c) { return IsLetter(c) || IsNumeric(c); }

// Whether it has letters with case, and all of those are `is`.
template <bool (*is)(char32_t), bool (*is_not)(char32_t)>
Value AllCased(Interpreter& interpreter, const Value& receiver, const Arguments&) {
  const std::string& text = receiver.text()->bytes;
  interpreter.run().StepLookups(text.size());
  bool has_case = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = NextCodePoint(text, position);
    if (is_not(code_point)) {
      return Value(false);
    }
    has_case |= is(code_point);
  }
  return Value(has_case);
}

Value AllAscii(Interpreter&, const Value& receiver, const Arguments&) {
  return Value(receiver.text()->is_ascii());
}

Value AllPrintable(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  return receiver.text()->bytes.empty() ? Value(true)
                                        : All<IsPrintable>(interpreter, receiver, arguments);
}

Value Format(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  return FormatBraces(interpreter.run(), receiver.text()->bytes, arguments,
                      [&](const Value& value, const Value& name, bool is_attribute) {
                        return is_attribute && name.text() != nullptr
                                   ? interpreter.GetAttribute(value, name.text()->bytes)
                                   : interpreter.GetItem(value, name);
                      });
}

}  // namespace

MethodFunction FindTextMethod(absl::string_view name) {
  static constexpr std::array<std::pair<absl::string_view, MethodFunction>, 27> kMethods = {
      {{"strip", Strip<Side::kBoth>},
       {"lstrip", Strip<Side::kLeft>},
       {"rstrip", Strip<Side::kRight>},
       {"replace", Replace},
       {"upper", Mapped<ToUpper>},
       {"lower", Mapped<ToLower>},
       {"casefold", Mapped<ToLower>},
       {"title", Mapped<TitleCase>},
       {"capitalize", Mapped<Capitalize>},
       {"swapcase", Mapped<SwapCase>},
       {"removeprefix", RemovePrefix},
       {"removesuffix", RemoveSuffix},
       {"ljust", Justify<'<'>},
       {"rjust", Justify<'>'>},
       {"center", Center},
       {"zfill", ZeroFill},
       {"format", Format},
       {"isalpha", All<IsLetter>},
       {"isdigit", All<IsDigit>},
       {"isdecimal", All<IsDigit>},
       {"isnumeric", All<IsNumeric>},
       {"isalnum", All<IsAlphanumeric>},
       {"isspace", All<IsSpace>},
       {"isascii", AllAscii},
       {"isprintable", AllPrintable},
       {"isupper", AllCased<IsUpper, IsLower>},
       {"islower", AllCased<IsLower, IsUpper>}}};
  const auto* found = std::find_if(kMethods.begin(), kMethods.end(),
                                   [&](const auto& method) { return method.first == name; });
  return found == kMethods.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
