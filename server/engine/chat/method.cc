#include "server/engine/chat/method.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/arguments.h"
#include "server/engine/chat/comparison.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/python_text.h"

namespace nibble::jinja {
namespace {

class BoundMethod : public Object {
 public:
  BoundMethod(Run* run, const Value& receiver, absl::string_view name, MethodFunction function)
      : Object(run, receiver.Depth() + 1), receiver_(receiver), name_(name), function_(function) {}

  std::string Shown() const override {
    return absl::StrCat("<built-in method ", name_, " of ", receiver_.TypeName(), " object>");
  }
  Value Call(Interpreter& interpreter, const Arguments& arguments) override {
    return LikeIts(interpreter.run(), receiver_, function_(interpreter, receiver_, arguments));
  }

 private:
  const Value receiver_;
  const std::string name_;
  const MethodFunction function_;
};

Value View(Interpreter& interpreter, const Value& receiver, const Arguments& arguments,
           Flavor flavor) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "a view of a dict", arguments, {});
  std::vector<Value> items;
  if (!run.StepLookups(receiver.map()->entries.size())) {
    return Value();
  }
  for (const auto& [key, value] : receiver.map()->entries) {
    if (run.failed()) {
      break;
    }
    items.push_back(flavor == Flavor::kKeys     ? key
                    : flavor == Flavor::kValues ? value
                                                : MakeSequence(&run, Flavor::kTuple, {key, value}));
  }
  return MakeSequence(&run, flavor, std::move(items));
}

Value Keys(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  return View(interpreter, receiver, arguments, Flavor::kKeys);
}

Value Values(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  return View(interpreter, receiver, arguments, Flavor::kValues);
}

Value ItemPairs(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  return View(interpreter, receiver, arguments, Flavor::kItems);
}

Value Get(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "get", arguments, {"key", "default"}, 1);
  if (run.failed()) {
    return Value();
  }
  if (!IsHashable(run, bound.Any(0))) {
    run.Fail(absl::StrCat("a '", bound.Any(0).TypeName(), "' cannot be a key of a dict"));
  }
  const Value* found = FindInMap(run, *receiver.map(), bound.Any(0));
  return found != nullptr ? *found : (bound.Get(1) == nullptr ? Value(None()) : bound.Any(1));
}

Value Copy(Interpreter&, const Value& receiver, const Arguments&) { return receiver; }

Value CountOf(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "count", arguments, {"value"}, 1);
  int64_t count = 0;
  for (const Value& item : receiver.sequence()->items) {
    count += Equals(run, item, bound.Any(0)) ? 1 : 0;
    if (run.failed()) {
      break;
    }
  }
  return Value(count);
}

Value IndexOf(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "index", arguments, {"value"}, 1);
  const auto& items = receiver.sequence()->items;
  const auto found = std::find_if(items.begin(), items.end(), [&](const Value& item) {
    return run.failed() || Equals(run, item, bound.Any(0));
  });
  if (found == items.end()) {
    run.Fail("index: the value is not in the list");
  }
  return Value(static_cast<int64_t>(found - items.begin()));
}

using NamedMethod = std::pair<absl::string_view, MethodFunction>;

constexpr std::array<NamedMethod, 5> kMapMethods = {
    {{"get", Get}, {"items", ItemPairs}, {"keys", Keys}, {"values", Values}, {"copy", Copy}}};
constexpr std::array<NamedMethod, 3> kListMethods = {
    {{"count", CountOf}, {"index", IndexOf}, {"copy", Copy}}};

template <size_t count>
MethodFunction FindIn(const std::array<NamedMethod, count>& methods, absl::string_view name) {
  const auto* found = std::find_if(methods.begin(), methods.end(),
                                   [&](const NamedMethod& method) { return method.first == name; });
  return found == methods.end() ? nullptr : found->second;
}

bool IsIndexed(const Value& value) {
  return value.Is(Flavor::kList) || value.Is(Flavor::kTuple) || value.Is(Flavor::kGroup) ||
         value.Is(Flavor::kRange);
}

}  // namespace

MethodFunction FindMethod(const Value& value, absl::string_view name) {
  if (value.text() != nullptr) {
    const MethodFunction found = FindTextMethod(name);
    return found != nullptr ? found : FindTextSearchMethod(name);
  }
  if (value.map() != nullptr) {
    return FindIn(kMapMethods, name);
  }
  if (IsIndexed(value)) {
    return name == "copy" && !value.Is(Flavor::kList) ? nullptr : FindIn(kListMethods, name);
  }
  return value.object() == nullptr ? nullptr : value.object()->FindMethod(name);
}

bool IsChangingMethod(const Value& value, absl::string_view name) {
  static constexpr std::array<absl::string_view, 8> kOfLists = {
      "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"};
  static constexpr std::array<absl::string_view, 5> kOfMaps = {"update", "pop", "popitem", "clear",
                                                               "setdefault"};
  if (value.map() != nullptr) {
    return std::find(kOfMaps.begin(), kOfMaps.end(), name) != kOfMaps.end();
  }
  return value.Is(Flavor::kList) &&
         std::find(kOfLists.begin(), kOfLists.end(), name) != kOfLists.end();
}

Value BindMethod(Run& run, const Value& receiver, absl::string_view name, MethodFunction function) {
  if (!run.MayMake(sizeof(BoundMethod))) {
    return Value();
  }
  return Value(
      std::shared_ptr<Object>(std::make_shared<BoundMethod>(&run, receiver, name, function)));
}

}  // namespace nibble::jinja
