#include "server/engine/chat/global_functions.h"

#include <algorithm>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/time_format.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

using Function = Value (*)(Interpreter& interpreter, const Arguments& arguments);

class FunctionObject : public Object {
 public:
  FunctionObject(Run* run, absl::string_view name, Function function)
      : Object(run, 0), name_(name), function_(function) {}

  std::string Shown() const override { return absl::StrCat("<function ", name_, ">"); }
  Value Call(Interpreter& interpreter, const Arguments& arguments) override {
    return function_(interpreter, arguments);
  }

 private:
  const absl::string_view name_;
  const Function function_;
};

Value Range(Interpreter& interpreter, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "range", arguments, {"start", "stop", "step"}, 1);
  const bool has_start = bound.Get(1) != nullptr;
  const int64_t start = has_start ? bound.Integer(0, 0) : 0;
  const int64_t stop = bound.Integer(has_start ? 1 : 0, 0);
  const int64_t step = bound.Integer(2, 1);
  if (step == 0) {
    run.Fail("the step of a range is not 0");
  }
  if (run.failed()) {
    return Value();
  }
  std::vector<Value> items;
  int64_t next = start;
  while ((step > 0 ? next < stop : next > stop) && run.StepLookups(1)) {
    if (static_cast<int64_t>(items.size()) == kRangeItemsMax) {
      run.FailWith(absl::ResourceExhaustedError(absl::StrCat("chat template, line ", run.line(),
                                                             ": a range has more than ",
                                                             kRangeItemsMax, " numbers")));
      return Value();
    }
    items.emplace_back(next);
    if (__builtin_add_overflow(next, step, &next)) {
      break;
    }
  }
  const Value range = MakeSequence(&run, Flavor::kRange, std::move(items));
  if (range.sequence() != nullptr) {
    range.sequence()->shown_as =
        absl::StrCat("range(", start, ", ", stop, step == 1 ? "" : absl::StrCat(", ", step), ")");
  }
  return range;
}

// dict(pairs or a dict, name=value, ...).
Value Dict(Interpreter& interpreter, const Arguments& arguments) {
  Run& run = interpreter.run();
  Pairs entries;
  if (arguments.positional.size() > 1) {
    run.Fail("dict takes one argument without a name");
  } else if (!arguments.positional.empty() && arguments.positional[0].map() != nullptr) {
    run.StepLookups(arguments.positional[0].map()->entries.size());
    entries = arguments.positional[0].map()->entries;
  } else if (!arguments.positional.empty()) {
    for (const Value& item : Items(run, arguments.positional[0])) {
      const Items pair(run, item);
      if (pair.size() != 2) {
        run.Fail("dict wants pairs");
        return Value();
      }
      entries.emplace_back(pair[0], pair[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) {
    entries.emplace_back(MakeText(&run, name), value);
  }
  return run.failed() ? Value() : MakeMap(run, std::move(entries));
}

Value MakeNamespaceValue(Interpreter& interpreter, const Arguments& arguments) {
  Run& run = interpreter.run();
  const Value entries = Dict(interpreter, arguments);
  std::vector<std::pair<std::string, Value>> attributes;
  if (entries.map() != nullptr && run.StepLookups(entries.map()->entries.size())) {
    for (const auto& [name, value] : entries.map()->entries) {
      attributes.emplace_back(ToText(run, name), value);
    }
  }
  return interpreter.MakeNamespace(std::move(attributes));
}

Value RaiseException(Interpreter& interpreter, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "raise_exception", arguments, {"message"}, 1);
  std::string message = ToText(run, bound.Any(0));
  if (static_cast<int64_t>(message.size()) > kMessageBytesMax) {
    size_t end = kMessageBytesMax;
    while ((static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) {
      --end;
    }
    message.resize(end);
  }
  run.FailWith(absl::InvalidArgumentError(message));
  return Value();
}

Value FormatNow(Interpreter& interpreter, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "strftime_now", arguments, {"format"}, 1);
  const Clock& clock = interpreter.clock();
  return MakeText(&run, FormatTime(run, bound.Text(0, ""), clock.now, clock.zone));
}

// cycler('a', 'b'): next() gives one after the other.
class Cycler : public Object {
 public:
  Cycler(Run* run, const Value& items) : Object(run, items.Depth() + 1), items_(items) {}

  std::string Shown() const override { return "<Cycler>"; }
  bool is_callable() const override { return false; }
  Value Call(Interpreter&, const Arguments&) override { return Value(); }
  Value GetAttribute(Interpreter&, absl::string_view name) override {
    return name == "current" ? current() : Value();
  }
  MethodFunction FindMethod(absl::string_view name) const override {
    return name == "next" ? &Next : (name == "reset" ? &Reset : nullptr);
  }

 private:
  const Value& current() const { return items_.sequence()->items[place_]; }

  static Value Next(Interpreter&, const Value& receiver, const Arguments&) {
    auto& cycler = static_cast<Cycler&>(*receiver.object());
    Value value = cycler.current();
    cycler.place_ = (cycler.place_ + 1) % cycler.items_.sequence()->items.size();
    return value;
  }
  static Value Reset(Interpreter&, const Value& receiver, const Arguments&) {
    static_cast<Cycler&>(*receiver.object()).place_ = 0;
    return Value(None());
  }

  const Value items_;
  size_t place_ = 0;
};

Value MakeCycler(Interpreter& interpreter, const Arguments& arguments) {
  Run& run = interpreter.run();
  const Value items = MakeSequence(&run, Flavor::kTuple, arguments.positional);
  if (arguments.positional.empty()) {
    run.Fail("cycler has nothing to cycle through");
  }
  return run.failed() ? Value()
                      : Value(std::shared_ptr<Object>(std::make_shared<Cycler>(&run, items)));
}

// joiner(', '): nothing at the first call, then the separator.
class Joiner : public Object {
 public:
  Joiner(Run* run, const Value& separator) : Object(run, 1), separator_(separator) {}

  std::string Shown() const override { return "<Joiner>"; }
  Value Call(Interpreter& interpreter, const Arguments&) override {
    return std::exchange(used_, true) ? separator_ : MakeText(&interpreter.run(), "");
  }

 private:
  const Value separator_;
  bool used_ = false;
};

Value MakeJoiner(Interpreter& interpreter, const Arguments& arguments) {
  Run& run = interpreter.run();
  BoundArguments bound(run, "joiner", arguments, {"sep"});
  return Value(
      std::shared_ptr<Object>(std::make_shared<Joiner>(&run, MakeText(&run, bound.Text(0, ", ")))));
}

}  // namespace

std::vector<std::pair<absl::string_view, Value>> MakeGlobals(Run& run) {
  static constexpr std::pair<absl::string_view, Function> kFunctions[] = {
      {"range", Range},
      {"dict", Dict},
      {"namespace", MakeNamespaceValue},
      {"raise_exception", RaiseException},
      {"strftime_now", FormatNow},
      {"cycler", MakeCycler},
      {"joiner", MakeJoiner}};
  std::vector<std::pair<absl::string_view, Value>> globals;
  for (const auto& [name, function] : kFunctions) {
    globals.emplace_back(
        name,
        Value(std::shared_ptr<Object>(std::make_shared<FunctionObject>(&run, name, function))));
  }
  return globals;
}

}  // namespace nibble::jinja
