// The expressions' part of Interpreter.

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/chat/arithmetic.h"
#include "server/engine/chat/comparison.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/python_text.h"

namespace nibble::jinja {

Value Interpreter::Evaluate(const Expression& expression) {
  const DepthGuard guard(run_, depth_);
  return run_.Step() ? EvaluateNode(expression) : Value();
}

Value Interpreter::EvaluateNode(const Expression& expression) {
  using Kind = Expression::Kind;
  switch (expression.kind) {
    case Kind::kLiteral:
      return static_cast<const Literal&>(expression).value;
    case Kind::kName:
      return EvaluateName(static_cast<const Name&>(expression));
    case Kind::kList:
      return EvaluateList(static_cast<const ListDisplay&>(expression));
    case Kind::kDict:
      return EvaluateDict(static_cast<const DictDisplay&>(expression));
    case Kind::kUnary:
      return EvaluateUnary(static_cast<const Unary&>(expression));
    case Kind::kBinary: {
      const auto& binary = static_cast<const Binary&>(expression);
      const Value left = Evaluate(*binary.left);
      const Value right = Evaluate(*binary.right);
      return run_.failed() ? Value() : Calculate(run_, binary.op, left, right);
    }
    case Kind::kLogic:
      return EvaluateLogic(static_cast<const Logic&>(expression));
    case Kind::kComparison:
      return EvaluateComparison(static_cast<const Comparison&>(expression));
    case Kind::kConcatenation:
      return EvaluateConcatenation(static_cast<const Concatenation&>(expression));
    case Kind::kConditional:
      return EvaluateConditional(static_cast<const Conditional&>(expression));
    case Kind::kAttribute: {
      const auto& access = static_cast<const AttributeAccess&>(expression);
      const Value object = Evaluate(*access.object);
      return run_.failed() ? Value() : GetAttribute(object, access.name);
    }
    case Kind::kItem:
      return EvaluateItem(static_cast<const ItemAccess&>(expression));
    case Kind::kSlice:
      run_.Fail("a slice stands alone");  // The parser makes none.
      return Value();
    case Kind::kCall:
      return EvaluateCall(static_cast<const Call&>(expression));
    case Kind::kFilter:
      return EvaluateFilter(static_cast<const Filter&>(expression), nullptr);
    case Kind::kTest:
      return EvaluateTest(static_cast<const Test&>(expression));
  }
  return Value();
}

Value Interpreter::EvaluateName(const Name& name) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    if (!run_.StepLookups(scope->variables.size())) {
      return Value();
    }
    for (const auto& [known, value] : scope->variables) {
      if (known == name.name) {
        return value;
      }
    }
  }
  for (const auto& [known, value] : globals_) {
    if (known == name.name) {
      return value;
    }
  }
  return Value::UndefinedBecause(run_, absl::StrCat("'", name.name, "' is undefined"));
}

Value Interpreter::EvaluateList(const ListDisplay& list) {
  std::vector<Value> items;
  items.reserve(list.items.size());
  for (const auto& item : list.items) {
    items.push_back(Evaluate(*item));
  }
  return MakeSequence(&run_, list.flavor, std::move(items));
}

Value Interpreter::EvaluateDict(const DictDisplay& dict) {
  Pairs entries;
  for (const auto& [key, value] : dict.entries) {
    Value evaluated_key = Evaluate(*key);
    entries.emplace_back(std::move(evaluated_key), Evaluate(*value));
  }
  return run_.failed() ? Value() : MakeMap(run_, std::move(entries));
}

Value Interpreter::EvaluateUnary(const Unary& unary) {
  const Value operand = Evaluate(*unary.operand);
  if (run_.failed()) {
    return Value();
  }
  if (unary.op == Unary::Operator::kNot) {
    return Value(!operand.Truth());
  }
  const Value negative = Negate(run_, operand);
  return unary.op == Unary::Operator::kNegative
             ? negative
             : (operand.is_bool() ? Value(operand.integer()) : operand);
}

Value Interpreter::EvaluateLogic(const Logic& logic) {
  Value left = Evaluate(*logic.left);
  return left.Truth() == logic.is_and && !run_.failed() ? Evaluate(*logic.right) : left;
}

Value Interpreter::EvaluateComparison(const Comparison& comparison) {
  Value left = Evaluate(*comparison.first);
  for (const auto& [relation, operand] : comparison.others) {
    Value right = Evaluate(*operand);
    if (run_.failed() || !Relate(run_, relation, left, right)) {
      return Value(false);
    }
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::EvaluateConcatenation(const Concatenation& concatenation) {
  std::string joined;
  for (const auto& part : concatenation.parts) {
    const Value value = Evaluate(*part);
    const bool is_text = value.text() != nullptr;
    const std::string shown = is_text ? "" : ToText(run_, value);
    const absl::string_view text = is_text ? value.text()->bytes : shown;
    if (!run_.MayMake(static_cast<int64_t>(joined.size() + text.size()))) {
      return Value();
    }
    absl::StrAppend(&joined, text);
  }
  return MakeText(&run_, std::move(joined));
}

Value Interpreter::EvaluateConditional(const Conditional& conditional) {
  if (Evaluate(*conditional.condition).Truth()) {
    return Evaluate(*conditional.then);
  }
  if (conditional.otherwise != nullptr && !run_.failed()) {
    return Evaluate(*conditional.otherwise);
  }
  return Value::UndefinedBecause(run_, "an 'if' without 'else' in an expression was false");
}

Value Interpreter::EvaluateItem(const ItemAccess& access) {
  const Value object = Evaluate(*access.object);
  if (run_.failed()) {
    return Value();
  }
  if (access.index->kind == Expression::Kind::kSlice) {
    return EvaluateSlice(object, static_cast<const Slice&>(*access.index));
  }
  const Value index = Evaluate(*access.index);
  return run_.failed() ? Value() : GetItem(object, index);
}

Value Interpreter::EvaluateSlice(const Value& object, const Slice& slice) {
  const auto part = [&](const ExpressionPointer& expression) {
    return expression == nullptr ? Value(None()) : Evaluate(*expression);
  };
  const Value start = part(slice.start);
  const Value stop = part(slice.stop);
  const Value step = part(slice.step);
  if (object.is_undefined()) {
    run_.Fail(object.reason());
  }
  if (run_.failed()) {
    return Value();
  }
  const bool is_indexed = object.text() != nullptr || object.Is(Flavor::kList) ||
                          object.Is(Flavor::kTuple) || object.Is(Flavor::kGroup) ||
                          object.Is(Flavor::kRange);
  if (!is_indexed) {
    run_.Fail(absl::StrCat("a '", object.TypeName(), "' has no slices"));
    return Value();
  }
  return LikeIts(run_, object, SliceOf(run_, object, start, stop, step));
}

Arguments Interpreter::EvaluateArguments(const ArgumentList& list) {
  Arguments arguments;
  for (const auto& expression : list.positional) {
    arguments.positional.push_back(Evaluate(*expression));
  }
  for (const auto& [name, expression] : list.named) {
    arguments.named.emplace_back(name, Evaluate(*expression));
  }
  if (list.more_positional != nullptr) {
    for (const Value& item : Items(run_, Evaluate(*list.more_positional))) {
      arguments.positional.push_back(item);
    }
  }
  if (list.more_named != nullptr) {
    const Value more = Evaluate(*list.more_named);
    if (more.map() == nullptr) {
      run_.Fail("** wants a dict");
      return arguments;
    }
    run_.StepLookups(more.map()->entries.size());
    for (const auto& [name, value] : more.map()->entries) {
      arguments.named.emplace_back(ToText(run_, name), value);
    }
  }
  return arguments;
}

Value Interpreter::EvaluateCall(const Call& call) {
  const Value callee = Evaluate(*call.callee);
  const Arguments arguments = EvaluateArguments(call.arguments);
  return run_.failed() ? Value() : CallValue(callee, arguments);
}

Value Interpreter::EvaluateFilter(const Filter& filter, const Value* block_text) {
  Value input = block_text == nullptr ? Value() : *block_text;
  if (filter.operand != nullptr) {
    // Of a block's chain of filters only the first has no operand; it is given the text.
    input = block_text != nullptr && filter.operand->kind == Expression::Kind::kFilter
                ? EvaluateFilter(static_cast<const Filter&>(*filter.operand), block_text)
                : Evaluate(*filter.operand);
  }
  const Arguments arguments = EvaluateArguments(filter.arguments);
  return run_.failed() ? Value() : ApplyFilter(filter.name, input, arguments);
}

Value Interpreter::EvaluateTest(const Test& test) {
  const Value operand = Evaluate(*test.operand);
  const Arguments arguments = EvaluateArguments(test.arguments);
  return Value(!run_.failed() && ApplyTest(test.name, operand, arguments));
}

}  // namespace nibble::jinja
