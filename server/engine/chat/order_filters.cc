// Filters that compare items with each other: sort, unique, min, groupby.

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/engine/chat/comparison.h"
#include "server/engine/chat/filters.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

// What an item is compared by: strings without case, unless they are told apart by it.
Value KeyOf(Run& run, const Value& value, bool case_sensitive) {
  if (case_sensitive || value.text() == nullptr) {
    return value;
  }
  const std::string& bytes = value.text()->bytes;
  return run.StepLookups(bytes.size()) ? MakeText(&run, ToLower(bytes)) : Value();
}

// The places of the items in their order by `keys`; equal ones stay in their order.
std::vector<size_t> SortedPlaces(Run& run, const std::vector<std::vector<Value>>& keys,
                                 bool reverse) {
  std::vector<size_t> places(keys.size());
  std::iota(places.begin(), places.end(), 0);
  const auto is_less = [&](size_t left, size_t right) {
    for (size_t i = 0; i < keys[left].size() && !run.failed(); ++i) {
      if (!Equals(run, keys[left][i], keys[right][i])) {
        return Compare(run, keys[left][i], keys[right][i]) == -1;
      }
    }
    return false;
  };
  // Once the run has failed every comparison is false at once, so this ends soon.
  std::stable_sort(places.begin(), places.end(), [&](size_t left, size_t right) {
    return reverse ? is_less(right, left) : is_less(left, right);
  });
  return places;
}

std::vector<Value> InOrder(const Items& items, const std::vector<size_t>& places) {
  std::vector<Value> ordered;
  ordered.reserve(places.size());
  for (const size_t place : places) {
    ordered.push_back(items[place]);
  }
  return ordered;
}

Value Sort(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Value> paths;
  if (const Value* attribute = bound.GetSome(2); attribute != nullptr) {
    if (attribute->text() == nullptr) {
      paths.push_back(*attribute);
    } else {
      for (const absl::string_view path : absl::StrSplit(attribute->text()->bytes, ',')) {
        paths.push_back(MakeText(&run, std::string(path)));
      }
    }
  } else {
    paths.emplace_back(None());
  }
  const Items items(run, input);
  std::vector<std::vector<Value>> keys;
  for (const Value& item : items) {
    std::vector<Value>& key = keys.emplace_back();
    for (const Value& path : paths) {
      if (!run.Step()) {
        return Value();
      }
      key.push_back(KeyOf(run, FollowPath(interpreter, item, &path), bound.Truth(1, false)));
    }
  }
  return MakeSequence(&run, Flavor::kList,
                      InOrder(items, SortedPlaces(run, keys, bound.Truth(0, false))));
}

Value DictSort(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.Text(1, "key");
  if (input.map() == nullptr || (by != "key" && by != "value")) {
    run.Fail("dictsort wants a dict, and to sort it by 'key' or 'value'");
    return Value();
  }
  std::vector<Value> pairs;
  std::vector<std::vector<Value>> keys;
  for (const auto& [key, value] : input.map()->entries) {
    if (!run.Step()) {
      return Value();
    }
    pairs.push_back(MakeSequence(&run, Flavor::kTuple, {key, value}));
    keys.push_back({KeyOf(run, by == "key" ? key : value, bound.Truth(0, false))});
  }
  const Items items(run, MakeSequence(&run, Flavor::kList, std::move(pairs)));
  if (run.failed()) {
    return Value();
  }
  return MakeSequence(&run, Flavor::kList,
                      InOrder(items, SortedPlaces(run, keys, bound.Truth(2, false))));
}

Value Unique(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "unique", arguments, {"case_sensitive", "attribute"});
  std::vector<Value> unique;
  std::vector<Value> seen;
  for (const Value& item : Items(run, input)) {
    const Value key =
        KeyOf(run, FollowPath(interpreter, item, bound.GetSome(1)), bound.Truth(0, false));
    if (!IsHashable(run, key)) {
      run.Fail(absl::StrCat("a '", key.TypeName(), "' cannot be told apart by unique"));
    }
    const bool is_new = std::none_of(seen.begin(), seen.end(), [&](const Value& other) {
      return run.failed() || Equals(run, key, other);
    });
    if (run.failed()) {
      return Value();
    }
    if (is_new) {
      seen.push_back(key);
      unique.push_back(item);
    }
  }
  return MakeSequence(&run, Flavor::kGenerator, std::move(unique));
}

// min (-1) and max (1): the first of the extreme ones.
template <int order>
Value Extreme(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "min and max", arguments, {"case_sensitive", "attribute"});
  const Items items(run, input);
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items) {
    Value key = KeyOf(run, FollowPath(interpreter, item, bound.GetSome(1)), bound.Truth(0, false));
    if (best == nullptr || Compare(run, key, best_key) == order) {
      best = &item;
      best_key = std::move(key);
    }
    if (run.failed()) {
      return Value();
    }
  }
  return best != nullptr ? *best : Value::UndefinedBecause(run, "the sequence is empty");
}

Value GroupBy(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "groupby", arguments, {"attribute", "default", "case_sensitive"},
                             1);
  const Items items(run, input);
  std::vector<std::vector<Value>> keys;
  for (const Value& item : items) {
    if (!run.Step()) {
      return Value();
    }
    keys.push_back({KeyOf(run, FollowPath(interpreter, item, bound.Get(0), bound.GetSome(1)),
                          bound.Truth(2, false))});
  }
  std::vector<Value> groups;
  std::vector<Value> group;
  const std::vector<size_t> places = SortedPlaces(run, keys, false);
  for (size_t i = 0; i < places.size() && run.Step(); ++i) {
    group.push_back(items[places[i]]);
    if (i + 1 == places.size() || !Equals(run, keys[places[i]][0], keys[places[i + 1]][0])) {
      const Value name = FollowPath(interpreter, group[0], bound.Get(0), bound.GetSome(1));
      groups.push_back(
          MakeSequence(&run, Flavor::kGroup,
                       {name, MakeSequence(&run, Flavor::kList, std::exchange(group, {}))}));
    }
  }
  return MakeSequence(&run, Flavor::kList, std::move(groups));
}

}  // namespace

FilterFunction FindOrderFilter(absl::string_view name) {
  static constexpr std::array<std::pair<absl::string_view, FilterFunction>, 6> kFilters = {
      {{"sort", Sort},
       {"dictsort", DictSort},
       {"unique", Unique},
       {"min", Extreme<-1>},
       {"max", Extreme<1>},
       {"groupby", GroupBy}}};
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(),
                                   [&](const auto& filter) { return filter.first == name; });
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
