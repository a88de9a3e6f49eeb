// Methods that find, split and join strings.

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/chat/arguments.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/method.h"
#include "server/engine/chat/text_search.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

// The part of a string that the optional arguments `start` and `end` leave, both by code points.
struct Window {
  absl::string_view text;
  int64_t start = 0;
};

std::optional<Window> WindowOf(Run& run, const Text& text, BoundArguments& bound, size_t first) {
  const auto clipped = [&](size_t index, int64_t otherwise) {
    const int64_t value = bound.GetSome(index) == nullptr ? otherwise : bound.Integer(index, 0);
    const int64_t from_start = value < 0 ? value + text.code_points : value;
    return std::max<int64_t>(from_start, 0);
  };
  run.StepLookups(bound.GetSome(first) == nullptr && bound.GetSome(first + 1) == nullptr
                      ? 0
                      : text.bytes.size());
  const int64_t start = clipped(first, 0);
  const int64_t end = std::min(clipped(first + 1, text.code_points), text.code_points);
  if (start > end) {
    return std::nullopt;
  }
  const size_t from = start == 0 ? 0 : ByteAt(text.bytes, start);
  const size_t to = end == text.code_points ? text.bytes.size() : ByteAt(text.bytes, end);
  return Window{absl::string_view(text.bytes).substr(from, to - from), start};
}

enum class Missing { kMinusOne, kError };

template <bool from_end, Missing missing>
Value Find(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "find", arguments, {"sub", "start", "end"}, 1);
  const std::string wanted = bound.Text(0, "");
  const auto window = WindowOf(run, *receiver.text(), bound, 1);
  size_t found = kNotFound;
  if (window.has_value() && run.StepBytes(receiver.text()->bytes.size())) {
    found = from_end ? FindLastText(window->text, wanted) : FindText(window->text, wanted);
  }
  if (found != kNotFound) {
    return Value(window->start + CodePointCount(window->text.substr(0, found)));
  }
  if (missing == Missing::kError) {
    run.Fail("index: the string does not have what is looked for");
  }
  return Value(int64_t{-1});
}

Value Count(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "count", arguments, {"sub", "start", "end"}, 1);
  const std::string wanted = bound.Text(0, "");
  const auto window = WindowOf(run, *receiver.text(), bound, 1);
  if (!window.has_value() || !run.StepLookups(receiver.text()->bytes.size())) {
    return Value(int64_t{0});
  }
  return Value(static_cast<int64_t>(CountText(window->text, wanted)));
}

// startswith and endswith, of a string or any of a tuple.
template <bool at_end>
Value HasAffix(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, at_end ? "endswith" : "startswith", arguments,
                       {"affix", "start", "end"}, 1);
  const auto window = WindowOf(run, *receiver.text(), bound, 1);
  const auto has = [&](const Value& affix) {
    if (affix.text() == nullptr) {
      run.Fail(absl::StrCat("startswith and endswith want a string or a tuple of them, found a '",
                            affix.TypeName(), "'"));
      return false;
    }
    const std::string& bytes = affix.text()->bytes;
    return run.StepBytes(bytes.size()) && window.has_value() &&
           (at_end ? absl::EndsWith(window->text, bytes) : absl::StartsWith(window->text, bytes));
  };
  if (run.failed()) {
    return Value();
  }
  const Value affix = bound.Any(0);
  if (!affix.Is(Flavor::kTuple)) {
    return Value(has(affix));
  }
  const auto& affixes = affix.sequence()->items;
  return Value(std::any_of(affixes.begin(), affixes.end(), has));
}

// At white space, runs of it being one.
std::vector<absl::string_view> SplitAtSpace(Run& run, absl::string_view text, int64_t splits_max) {
  std::vector<absl::string_view> parts;
  text = StripLeft(text);
  while (!text.empty() && MayHaveParts(run, parts.size())) {
    if (static_cast<int64_t>(parts.size()) == splits_max) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    for (size_t next = 0; next < text.size(); end = next) {
      if (IsSpace(NextCodePoint(text, next))) {
        break;
      }
    }
    parts.push_back(text.substr(0, end));
    text = StripLeft(text.substr(end));
  }
  return parts;
}

std::vector<absl::string_view> SplitAtSpaceFromEnd(Run& run, absl::string_view text,
                                                   int64_t splits_max) {
  std::vector<absl::string_view> parts;
  text = StripRight(text);
  while (!text.empty() && MayHaveParts(run, parts.size())) {
    if (static_cast<int64_t>(parts.size()) == splits_max) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      size_t previous = begin - 1;
      while (previous > 0 && (static_cast<unsigned char>(text[previous]) & 0xC0) == 0x80) {
        --previous;
      }
      size_t next = previous;
      if (IsSpace(NextCodePoint(text, next))) {
        break;
      }
      begin = previous;
    }
    parts.push_back(text.substr(begin));
    text = StripRight(text.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<absl::string_view> SplitAt(Run& run, absl::string_view text,
                                       absl::string_view separator, int64_t splits_max) {
  std::vector<absl::string_view> parts;
  size_t position = 0;
  while (static_cast<int64_t>(parts.size()) < splits_max && MayHaveParts(run, parts.size())) {
    const size_t at = FindText(text, separator, position);
    if (at == kNotFound) {
      break;
    }
    parts.push_back(text.substr(position, at - position));
    position = at + separator.size();
  }
  parts.push_back(text.substr(position));
  return parts;
}

// On the reversed strings, whose parts are the same from the other end.
std::vector<absl::string_view> SplitAtFromEnd(Run& run, absl::string_view text,
                                              absl::string_view separator, int64_t splits_max) {
  const std::string reversed(text.rbegin(), text.rend());
  const std::string reversed_separator(separator.rbegin(), separator.rend());
  std::vector<absl::string_view> parts;
  for (const absl::string_view part : SplitAt(run, reversed, reversed_separator, splits_max)) {
    const auto begin = static_cast<size_t>(part.data() - reversed.data());
    parts.push_back(text.substr(text.size() - begin - part.size(), part.size()));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value ListOf(Run& run, const std::vector<absl::string_view>& parts, Flavor flavor) {
  std::vector<Value> items;
  for (const absl::string_view part : parts) {
    if (!run.Step()) {
      break;
    }
    items.push_back(MakeText(&run, std::string(part)));
  }
  return MakeSequence(&run, flavor, std::move(items));
}

template <bool from_end>
Value Split(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "split", arguments, {"sep", "maxsplit"});
  const int64_t asked = bound.Integer(1, -1);
  const int64_t splits_max = asked < 0 ? kEndless : asked;
  const std::string& text = receiver.text()->bytes;
  if (!run.MayMake(static_cast<int64_t>(text.size()))) {
    return Value();
  }
  if (bound.GetSome(0) == nullptr) {
    run.StepLookups(text.size());
    return ListOf(
        run,
        from_end ? SplitAtSpaceFromEnd(run, text, splits_max) : SplitAtSpace(run, text, splits_max),
        Flavor::kList);
  }
  const std::string separator = bound.Text(0, "");
  if (separator.empty()) {
    run.Fail("split: the separator is empty");
    return Value();
  }
  run.StepBytes(text.size());
  return ListOf(run,
                from_end ? SplitAtFromEnd(run, text, separator, splits_max)
                         : SplitAt(run, text, separator, splits_max),
                Flavor::kList);
}

template <bool from_end>
Value Partition(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "partition", arguments, {"sep"}, 1);
  const std::string separator = bound.Text(0, "");
  const absl::string_view text = receiver.text()->bytes;
  if (separator.empty()) {
    run.Fail("partition: the separator is empty");
    return Value();
  }
  run.StepBytes(text.size());
  const size_t at = from_end ? FindLastText(text, separator) : FindText(text, separator);
  if (at == kNotFound) {
    return from_end ? ListOf(run, {"", "", text}, Flavor::kTuple)
                    : ListOf(run, {text, "", ""}, Flavor::kTuple);
  }
  return ListOf(run, {text.substr(0, at), separator, text.substr(at + separator.size())},
                Flavor::kTuple);
}

Value SplitLines(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "splitlines", arguments, {"keepends"});
  const absl::string_view text = receiver.text()->bytes;
  run.StepLookups(text.size());
  return ListOf(run, LinesOf(run, text, bound.Truth(0, false)), Flavor::kList);
}

Value JoinItems(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "join", arguments, {"iterable"}, 1);
  std::string joined;
  absl::string_view separator = "";
  for (const Value& item : Items(run, bound.Any(0))) {
    if (item.text() == nullptr) {
      run.Fail(absl::StrCat("join wants strings, found a '", item.TypeName(), "'"));
    }
    if (run.failed() ||
        !run.MayMake(
            static_cast<int64_t>(joined.size() + separator.size() + item.text()->bytes.size())) ||
        !run.StepBytes(item.text()->bytes.size())) {
      return Value();
    }
    absl::StrAppend(&joined, separator, item.text()->bytes);
    separator = receiver.text()->bytes;
  }
  return MakeText(&run, std::move(joined));
}

}  // namespace

MethodFunction FindTextSearchMethod(absl::string_view name) {
  static constexpr std::array<std::pair<absl::string_view, MethodFunction>, 13> kMethods = {
      {{"find", Find<false, Missing::kMinusOne>},
       {"rfind", Find<true, Missing::kMinusOne>},
       {"index", Find<false, Missing::kError>},
       {"rindex", Find<true, Missing::kError>},
       {"count", Count},
       {"startswith", HasAffix<false>},
       {"endswith", HasAffix<true>},
       {"split", Split<false>},
       {"rsplit", Split<true>},
       {"splitlines", SplitLines},
       {"partition", Partition<false>},
       {"rpartition", Partition<true>},
       {"join", JoinItems}}};
  const auto* found = std::find_if(kMethods.begin(), kMethods.end(),
                                   [&](const auto& method) { return method.first == name; });
  return found == kMethods.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
