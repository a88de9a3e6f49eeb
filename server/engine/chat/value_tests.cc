#include "server/engine/chat/value_tests.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/arithmetic.h"
#include "server/engine/chat/comparison.h"
#include "server/engine/chat/filters.h"
#include "server/engine/chat/method.h"
#include "server/engine/chat/python_text.h"

namespace nibble::jinja {
namespace {

bool IsDefined(Interpreter&, const Value& input, const Arguments&) { return !input.is_undefined(); }
bool IsUndefined(Interpreter&, const Value& input, const Arguments&) {
  return input.is_undefined();
}
bool IsNone(Interpreter&, const Value& input, const Arguments&) { return input.is_none(); }
bool IsBoolean(Interpreter&, const Value& input, const Arguments&) { return input.is_bool(); }
bool IsTrue(Interpreter&, const Value& input, const Arguments&) {
  return input.is_bool() && input.Truth();
}
bool IsFalse(Interpreter&, const Value& input, const Arguments&) {
  return input.is_bool() && !input.Truth();
}
bool IsInteger(Interpreter&, const Value& input, const Arguments&) {
  return input.is_integer() && !input.is_bool();
}
bool IsFloat(Interpreter&, const Value& input, const Arguments&) { return input.is_float(); }
bool IsNumber(Interpreter&, const Value& input, const Arguments&) { return input.is_number(); }
bool IsString(Interpreter&, const Value& input, const Arguments&) {
  return input.text() != nullptr;
}
bool IsMapping(Interpreter&, const Value& input, const Arguments&) {
  return input.map() != nullptr;
}
// As Jinja's, an undefined value is one too: it has a length and looks as if it had items.
bool IsSequence(Interpreter&, const Value& input, const Arguments&) {
  return input.text() != nullptr || input.map() != nullptr || input.is_undefined() ||
         input.Is(Flavor::kList) || input.Is(Flavor::kTuple) || input.Is(Flavor::kGroup) ||
         input.Is(Flavor::kRange);
}
bool IsIterable(Interpreter&, const Value& input, const Arguments&) {
  return input.text() != nullptr || input.map() != nullptr || input.sequence() != nullptr ||
         input.is_undefined();
}
bool IsCallable(Interpreter&, const Value& input, const Arguments&) {
  return input.is_undefined() || (input.object() != nullptr && input.object()->is_callable());
}
bool IsEscaped(Interpreter&, const Value& input, const Arguments&) {
  return input.text() != nullptr && input.text()->is_markup;
}

bool IsFilter(Interpreter&, const Value& input, const Arguments&) {
  return input.text() != nullptr && FindFilter(input.text()->bytes) != nullptr;
}
bool IsTest(Interpreter&, const Value& input, const Arguments&) {
  return input.text() != nullptr && FindTest(input.text()->bytes) != nullptr;
}

bool HasRest(Interpreter& interpreter, const Value& input, int64_t divisor, int64_t rest) {
  Run& run = interpreter.run();
  const Value result = Calculate(run, Arithmetic::kModulo, input, Value(divisor));
  return !run.failed() && Equals(run, result, Value(rest));
}

bool IsOdd(Interpreter& interpreter, const Value& input, const Arguments&) {
  return HasRest(interpreter, input, 2, 1);
}
bool IsEven(Interpreter& interpreter, const Value& input, const Arguments&) {
  return HasRest(interpreter, input, 2, 0);
}
bool IsDivisible(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  BoundArguments bound(interpreter.run(), "divisibleby", arguments, {"num"}, 1);
  return HasRest(interpreter, input, bound.Integer(0, 1), 0);
}

template <bool upper>
bool HasCase(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value text = ToTextValue(interpreter.run(), input);
  return text.text() != nullptr &&
         FindTextMethod(upper ? "isupper" : "islower")(interpreter, text, arguments).Truth();
}

template <Relation relation>
bool Relates(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "a comparison", arguments, {"other"}, 1);
  return !run.failed() && Relate(run, relation, input, bound.Any(0));
}

// Of values only None, True and False are one; of objects each is itself.
bool IsSameAs(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Run& run = interpreter.run();
  const BoundArguments bound(run, "sameas", arguments, {"other"}, 1);
  const Value other = bound.Any(0);
  if (input.is_bool() != other.is_bool() || input.is_float() != other.is_float()) {
    return false;
  }
  if (input.sequence() != nullptr || input.map() != nullptr) {
    return input.sequence() == other.sequence() && input.map() == other.map();
  }
  return Equals(run, input, other);
}

using NamedTest = std::pair<absl::string_view, TestFunction>;

constexpr std::array<NamedTest, 39> kTests = {{{"defined", IsDefined},
                                               {"undefined", IsUndefined},
                                               {"none", IsNone},
                                               {"boolean", IsBoolean},
                                               {"true", IsTrue},
                                               {"false", IsFalse},
                                               {"integer", IsInteger},
                                               {"float", IsFloat},
                                               {"number", IsNumber},
                                               {"string", IsString},
                                               {"mapping", IsMapping},
                                               {"sequence", IsSequence},
                                               {"iterable", IsIterable},
                                               {"callable", IsCallable},
                                               {"escaped", IsEscaped},
                                               {"filter", IsFilter},
                                               {"test", IsTest},
                                               {"odd", IsOdd},
                                               {"even", IsEven},
                                               {"divisibleby", IsDivisible},
                                               {"upper", HasCase<true>},
                                               {"lower", HasCase<false>},
                                               {"sameas", IsSameAs},
                                               {"in", Relates<Relation::kIn>},
                                               {"eq", Relates<Relation::kEqual>},
                                               {"equalto", Relates<Relation::kEqual>},
                                               {"==", Relates<Relation::kEqual>},
                                               {"ne", Relates<Relation::kNotEqual>},
                                               {"!=", Relates<Relation::kNotEqual>},
                                               {"lt", Relates<Relation::kLess>},
                                               {"lessthan", Relates<Relation::kLess>},
                                               {"<", Relates<Relation::kLess>},
                                               {"le", Relates<Relation::kLessEqual>},
                                               {"<=", Relates<Relation::kLessEqual>},
                                               {"gt", Relates<Relation::kGreater>},
                                               {"greaterthan", Relates<Relation::kGreater>},
                                               {">", Relates<Relation::kGreater>},
                                               {"ge", Relates<Relation::kGreaterEqual>},
                                               {">=", Relates<Relation::kGreaterEqual>}}};

}  // namespace

TestFunction FindTest(absl::string_view name) {
  const auto* found = std::find_if(kTests.begin(), kTests.end(),
                                   [&](const NamedTest& test) { return test.first == name; });
  return found == kTests.end() ? nullptr : found->second;
}

}  // namespace nibble::jinja
