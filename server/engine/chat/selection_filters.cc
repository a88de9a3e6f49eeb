// Filters that apply a filter or a test to each item.

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/filters.h"

namespace nibble::jinja {
namespace {

// The name of a filter or test among the arguments of `map` and `select`, and what is behind it.
struct Application {
  std::string name;
  Arguments arguments;
};

Application ApplicationFrom(Run& run, const Arguments& arguments, size_t first) {
  Application application;
  application.arguments.named = arguments.named;
  const auto& positional = arguments.positional;
  if (positional.size() <= first || positional[first].text() == nullptr) {
    run.Fail("the name of a filter or test is missing");
    return application;
  }
  application.name = positional[first].text()->bytes;
  application.arguments.positional = {positional.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                                      positional.end()};
  return application;
}

Value MapAttribute(Interpreter& interpreter, const Items& items, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "map", arguments, {"attribute", "default"}, 1);
  std::vector<Value> mapped;
  for (const Value& item : items) {
    if (!run.Step()) {
      return Value();
    }
    mapped.push_back(FollowPath(interpreter, item, bound.Get(0), bound.GetSome(1)));
  }
  return MakeSequence(&run, Flavor::kGenerator, std::move(mapped));
}

Value MapItems(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  if (!input.Truth()) {  // Jinja does not look at what is false.
    return MakeSequence(&run, Flavor::kGenerator, {});
  }
  const Items items(run, input);
  const bool has_attribute =
      std::any_of(arguments.named.begin(), arguments.named.end(),
                  [](const auto& argument) { return argument.first == "attribute"; });
  if (arguments.positional.empty() && has_attribute) {
    return MapAttribute(interpreter, items, arguments);
  }
  const Application application = ApplicationFrom(run, arguments, 0);
  std::vector<Value> mapped;
  for (const Value& item : items) {
    if (!run.Step()) {
      return Value();
    }
    mapped.push_back(interpreter.ApplyFilter(application.name, item, application.arguments));
  }
  return MakeSequence(&run, Flavor::kGenerator, std::move(mapped));
}

// select, reject, selectattr, rejectattr: the items that pass a test, or that are true.
template <bool keeps, bool by_attribute>
Value Select(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  if (!input.Truth()) {
    return MakeSequence(&run, Flavor::kGenerator, {});
  }
  const auto& positional = arguments.positional;
  if (by_attribute && positional.empty()) {
    run.Fail("the name of an attribute is missing");
    return Value();
  }
  const Value* const attribute = by_attribute ? &positional[0] : nullptr;
  constexpr size_t kFirst = by_attribute ? 1 : 0;
  const bool has_test = positional.size() > kFirst;
  const Application application =
      has_test ? ApplicationFrom(run, arguments, kFirst) : Application();
  std::vector<Value> selected;
  for (const Value& item : Items(run, input)) {
    if (!run.Step()) {
      return Value();
    }
    const Value looked_at = FollowPath(interpreter, item, attribute);
    const bool passes =
        has_test ? interpreter.ApplyTest(application.name, looked_at, application.arguments)
                 : looked_at.Truth();
    if (passes == keeps) {
      selected.push_back(item);
    }
  }
  return MakeSequence(&run, Flavor::kGenerator, std::move(selected));
}

}  // namespace

FilterFunction FindSelectionFilter(absl::string_view name) {
  static constexpr std::array<std::pair<absl::string_view, FilterFunction>, 5> kFilters = {
      {{"map", MapItems},
       {"select", Select<true, false>},
       {"reject", Select<false, false>},
       {"selectattr", Select<true, true>},
       {"rejectattr", Select<false, true>}}};
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(),
                                   [&](const auto& filter) { return filter.first == name; });
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
