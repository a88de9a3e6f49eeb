// Filters that look at or take apart what has items.

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/arithmetic.h"
#include "server/engine/chat/filters.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

Value NoItem(Run& run, absl::string_view which) {
  return Value::UndefinedBecause(run, absl::StrCat("there is no ", which, " item"));
}

Value Length(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.text() != nullptr) {
    return Value(input.text()->code_points);
  }
  if (input.map() != nullptr) {
    return Value(static_cast<int64_t>(input.map()->entries.size()));
  }
  if (input.sequence() != nullptr && !input.Is(Flavor::kGenerator)) {
    return Value(static_cast<int64_t>(input.sequence()->items.size()));
  }
  if (!input.is_undefined()) {
    interpreter.run().Fail(absl::StrCat("a '", input.TypeName(), "' has no length"));
  }
  return Value(int64_t{0});
}

Value First(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  if (input.text() != nullptr) {
    const std::string& bytes = input.text()->bytes;
    return bytes.empty() ? NoItem(run, "first") : MakeText(&run, bytes.substr(0, ByteAt(bytes, 1)));
  }
  if (input.Is(Flavor::kGenerator)) {
    Sequence& generator = *input.sequence();
    return generator.items_read < generator.items.size() ? generator.items[generator.items_read++]
                                                         : NoItem(run, "first");
  }
  const Items items(run, input);
  return items.empty() ? NoItem(run, "first") : items[0];
}

Value Last(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  if (input.Is(Flavor::kGenerator)) {
    run.Fail("a 'generator' has no last item");
    return Value();
  }
  if (input.text() != nullptr) {
    const Value minus_one(int64_t{-1});
    return input.text()->bytes.empty() ? NoItem(run, "last")
                                       : interpreter.GetItem(input, minus_one);
  }
  const Items items(run, input);
  return items.empty() ? NoItem(run, "last") : items[items.size() - 1];
}

Value List(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  const Items items(run, input);
  return run.MayMake(static_cast<int64_t>(items.size() * sizeof(Value)))
             ? MakeSequence(&run, Flavor::kList, items.all())
             : Value();
}

Value Join(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "join", arguments, {"d", "attribute"});
  const std::string separator = bound.Get(0) == nullptr ? "" : ToText(run, bound.Any(0));
  std::string joined;
  bool is_first = true;
  for (const Value& item : Items(run, input)) {
    const std::string text = ToText(run, FollowPath(interpreter, item, bound.GetSome(1)));
    if (!run.StepBytes(text.size() + separator.size()) ||
        !run.MayMake(static_cast<int64_t>(joined.size() + separator.size() + text.size()))) {
      return Value();
    }
    joined.append(is_first ? "" : separator).append(text);
    is_first = false;
  }
  return MakeText(&run, std::move(joined));
}

Value Reverse(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  if (input.text() != nullptr) {
    return SliceOf(run, input, Value(None()), Value(None()), Value(int64_t{-1}));
  }
  const Items items(run, input);
  if (!run.StepLookups(items.size())) {
    return Value();
  }
  return MakeSequence(&run, input.Is(Flavor::kGenerator) ? Flavor::kList : Flavor::kGenerator,
                      {items.all().rbegin(), items.all().rend()});
}

Value Sum(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "sum", arguments, {"attribute", "start"});
  Value sum = bound.Get(1) == nullptr ? Value(int64_t{0}) : bound.Any(1);
  if (sum.text() != nullptr) {
    run.Fail("sum cannot add strings");
  }
  for (const Value& item : Items(run, input)) {
    if (!run.Step()) {
      return Value();
    }
    sum = Calculate(run, Arithmetic::kAdd, sum, FollowPath(interpreter, item, bound.GetSome(0)));
  }
  return sum;
}

// Pairs of a dict, as filter `items` and dictsort give them.
std::vector<Value> PairsOf(Run& run, const Map& map) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : map.entries) {
    if (!run.Step()) {
      break;
    }
    pairs.push_back(MakeSequence(&run, Flavor::kTuple, {key, value}));
  }
  return pairs;
}

Value ItemPairs(Interpreter& interpreter, const Value& input, const Arguments&) {
  Run& run = interpreter.run();
  if (input.map() == nullptr && !input.is_undefined()) {
    run.Fail(absl::StrCat("items wants a dict, found a '", input.TypeName(), "'"));
    return Value();
  }
  return MakeSequence(&run, Flavor::kGenerator,
                      input.map() == nullptr ? std::vector<Value>() : PairsOf(run, *input.map()));
}

Value Batch(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t count = bound.Integer(0, 1);
  std::vector<Value> batches;
  std::vector<Value> batch;
  // Only a full one is handed on, so a count below one never does.
  for (const Value& item : Items(run, input)) {
    if (!run.Step()) {
      return Value();
    }
    if (static_cast<int64_t>(batch.size()) == count) {
      batches.push_back(MakeSequence(&run, Flavor::kList, std::exchange(batch, {})));
    }
    batch.push_back(item);
  }
  if (!batch.empty()) {
    while (bound.GetSome(1) != nullptr && static_cast<int64_t>(batch.size()) < count &&
           run.Step() && run.MayMake(static_cast<int64_t>(batch.size() * sizeof(Value)))) {
      batch.push_back(bound.Any(1));
    }
    batches.push_back(MakeSequence(&run, Flavor::kList, std::move(batch)));
  }
  return MakeSequence(&run, Flavor::kGenerator, std::move(batches));
}

Value Slice(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "slice", arguments, {"slices", "fill_with"}, 1);
  const int64_t count = bound.Integer(0, 1);
  if (count == 0) {
    run.Fail("division by zero");
  }
  const Items items(run, input);
  if (run.failed()) {
    return Value();
  }
  std::vector<Value> slices;
  auto next = items.begin();
  const auto size = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < count && run.Step(); ++i) {
    const bool has_extra = i < size % count;
    const auto end = next + static_cast<std::ptrdiff_t>(size / count + (has_extra ? 1 : 0));
    std::vector<Value> slice(next, end);
    if (bound.GetSome(1) != nullptr && !has_extra) {
      slice.push_back(bound.Any(1));
    }
    slices.push_back(MakeSequence(&run, Flavor::kList, std::move(slice)));
    next = end;
  }
  return MakeSequence(&run, Flavor::kGenerator, std::move(slices));
}

Value Default(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "default", arguments, {"default_value", "boolean"});
  const bool is_missing = input.is_undefined() || (bound.Truth(1, false) && !input.Truth());
  return !is_missing ? input : (bound.Get(0) == nullptr ? MakeText(&run, "") : bound.Any(0));
}

// Attributes alone, as Jinja has it: an item of a dict is none.
Value Attribute(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "attr", arguments, {"name"}, 1);
  const std::string name = bound.Text(0, "");
  const Value empty = MakeMap(run, {});
  return run.failed() ? Value()
                      : interpreter.GetAttribute(input.map() == nullptr ? input : empty, name);
}

using NamedFilter = std::pair<absl::string_view, FilterFunction>;

constexpr std::array<NamedFilter, 14> kFilters = {{{"length", Length},
                                                   {"count", Length},
                                                   {"first", First},
                                                   {"last", Last},
                                                   {"list", List},
                                                   {"join", Join},
                                                   {"reverse", Reverse},
                                                   {"sum", Sum},
                                                   {"items", ItemPairs},
                                                   {"batch", Batch},
                                                   {"slice", Slice},
                                                   {"default", Default},
                                                   {"d", Default},
                                                   {"attr", Attribute}}};

}  // namespace

FilterFunction FindSequenceFilter(absl::string_view name) {
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(),
                                   [&](const NamedFilter& filter) { return filter.first == name; });
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
