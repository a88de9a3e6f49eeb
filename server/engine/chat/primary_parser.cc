// The inner half of ExpressionParser: names, literals, and what may stand behind them.

#include "absl/strings/match.h"
#include "server/engine/chat/expression_parser.h"

namespace nibble::jinja {
namespace {

using Kind = Token::Kind;

ExpressionPointer MakeLiteral(Value value) {
  auto literal = std::make_unique<Literal>();
  literal->value = std::move(value);
  return literal;
}

// Whether an argument of a test may begin here that has no parentheses around it: `is divisibleby
// 3`.
bool BeginsTestArgument(const TokenStream& tokens) {
  switch (tokens.current().kind) {
    case Kind::kName:
      return !tokens.IsName("else") && !tokens.IsName("or") && !tokens.IsName("and");
    case Kind::kString:
    case Kind::kInteger:
    case Kind::kFloat:
      return true;
    default:
      return tokens.IsOperator("[") || tokens.IsOperator("{");
  }
}

}  // namespace

ExpressionPointer ExpressionParser::ParsePrimary() {
  switch (tokens_.current().kind) {
    case Kind::kName:
      return ParseName();
    case Kind::kString:
      return ParseString();
    case Kind::kInteger:
    case Kind::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (tokens_.TakeOperator("(")) {
    ExpressionPointer node = ParseTuple(true, true);
    tokens_.ExpectOperator(")");
    return node;
  }
  if (tokens_.IsOperator("[")) {
    return ParseList();
  }
  if (tokens_.IsOperator("{")) {
    return ParseDict();
  }
  tokens_.FailExpecting("an expression");
  return nullptr;
}

ExpressionPointer ExpressionParser::ParseName() {
  const std::string name = tokens_.Take().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    return MakeLiteral(Value(absl::EqualsIgnoreCase(name, "true")));
  }
  if (name == "none" || name == "None") {
    return MakeLiteral(Value(None()));
  }
  if (!macros.empty()) {
    macros.back()->uses_caller |= name == "caller";
    macros.back()->uses_varargs |= name == "varargs";
    macros.back()->uses_kwargs |= name == "kwargs";
  }
  auto node = std::make_unique<Name>();
  node->name = name;
  return node;
}

ExpressionPointer ExpressionParser::ParseString() {
  std::string text;
  while (tokens_.Is(Kind::kString)) {
    text += tokens_.Take().text;
  }
  return MakeLiteral(MakeText(nullptr, std::move(text)));
}

ExpressionPointer ExpressionParser::ParseNumber() {
  const Token token = tokens_.Take();
  return MakeLiteral(token.kind == Kind::kInteger ? Value(token.integer) : Value(token.number));
}

ExpressionPointer ExpressionParser::ParseList() {
  tokens_.ExpectOperator("[");
  auto list = std::make_unique<ListDisplay>();
  while (!tokens_.failed() && !tokens_.IsOperator("]")) {
    Adopt(*list, list->items.emplace_back(), ParseExpression());
    if (!tokens_.TakeOperator(",")) {
      break;
    }
  }
  tokens_.ExpectOperator("]");
  return list;
}

ExpressionPointer ExpressionParser::ParseDict() {
  tokens_.ExpectOperator("{");
  auto dict = std::make_unique<DictDisplay>();
  while (!tokens_.failed() && !tokens_.IsOperator("}")) {
    dict->entries.emplace_back();
    Adopt(*dict, dict->entries.back().first, ParseExpression());
    tokens_.ExpectOperator(":");
    Adopt(*dict, dict->entries.back().second, ParseExpression());
    if (!tokens_.TakeOperator(",")) {
      break;
    }
  }
  tokens_.ExpectOperator("}");
  return dict;
}

ExpressionPointer ExpressionParser::ParsePostfix(ExpressionPointer node) {
  while (!tokens_.failed()) {
    if (tokens_.IsOperator(".")) {
      node = ParseAttribute(std::move(node));
    } else if (tokens_.IsOperator("[")) {
      node = ParseItem(std::move(node));
    } else if (tokens_.IsOperator("(")) {
      node = ParseCall(std::move(node));
    } else {
      break;
    }
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseFiltersAndTests(ExpressionPointer node) {
  while (!tokens_.failed()) {
    if (tokens_.TakeOperator("|")) {
      node = ParseFilter(std::move(node));
    } else if (tokens_.TakeName("is")) {
      node = ParseTest(std::move(node));
    } else if (tokens_.IsOperator("(")) {
      node = ParseCall(std::move(node));
    } else {
      break;
    }
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseAttribute(ExpressionPointer object) {
  tokens_.ExpectOperator(".");
  if (tokens_.Is(Kind::kInteger)) {  // items.0
    auto item = std::make_unique<ItemAccess>();
    Adopt(*item, item->object, std::move(object));
    Adopt(*item, item->index, ParseNumber());
    return item;
  }
  auto attribute = std::make_unique<AttributeAccess>();
  Adopt(*attribute, attribute->object, std::move(object));
  attribute->name = tokens_.ExpectAnyName();
  return attribute;
}

ExpressionPointer ExpressionParser::ParseItem(ExpressionPointer object) {
  tokens_.ExpectOperator("[");
  auto item = std::make_unique<ItemAccess>();
  Adopt(*item, item->object, std::move(object));
  Adopt(*item, item->index, ParseSubscript());
  if (tokens_.IsOperator(",")) {
    auto tuple = std::make_unique<ListDisplay>();
    tuple->flavor = Flavor::kTuple;
    Adopt(*tuple, tuple->items.emplace_back(), std::move(item->index));
    while (tokens_.TakeOperator(",")) {
      Adopt(*tuple, tuple->items.emplace_back(), ParseExpression());
    }
    Adopt(*item, item->index, std::move(tuple));
  }
  tokens_.ExpectOperator("]");
  return item;
}

ExpressionPointer ExpressionParser::ParseSubscript() {
  ExpressionPointer first;
  if (!tokens_.IsOperator(":")) {
    first = ParseExpression();
    if (!tokens_.IsOperator(":")) {
      return first;
    }
  }
  auto slice = std::make_unique<Slice>();
  Adopt(*slice, slice->start, std::move(first));
  const auto ends = [&] { return tokens_.IsOperator("]") || tokens_.IsOperator(":"); };
  tokens_.ExpectOperator(":");
  if (!ends()) {
    Adopt(*slice, slice->stop, ParseExpression());
  }
  if (tokens_.TakeOperator(":") && !ends()) {
    Adopt(*slice, slice->step, ParseExpression());
  }
  return slice;
}

ExpressionPointer ExpressionParser::ParseCall(ExpressionPointer callee) {
  auto call = std::make_unique<Call>();
  Adopt(*call, call->callee, std::move(callee));
  call->arguments = ParseArguments(*call);
  return call;
}

ExpressionPointer ExpressionParser::ParseFilter(ExpressionPointer operand) {
  auto filter = std::make_unique<Filter>();
  Adopt(*filter, filter->operand, std::move(operand));
  filter->name = ParseDottedName();
  if (tokens_.IsOperator("(")) {
    filter->arguments = ParseArguments(*filter);
  }
  return filter;
}

ExpressionPointer ExpressionParser::ParseFilters() {
  ExpressionPointer node = ParseFilter(nullptr);
  while (tokens_.TakeOperator("|")) {
    node = ParseFilter(std::move(node));
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseTest(ExpressionPointer operand) {
  const bool negated = tokens_.TakeName("not");
  auto test = std::make_unique<Test>();
  Adopt(*test, test->operand, std::move(operand));
  test->name = ParseDottedName();
  if (tokens_.IsOperator("(")) {
    test->arguments = ParseArguments(*test);
  } else if (BeginsTestArgument(tokens_)) {
    if (tokens_.IsName("is")) {
      tokens_.Fail("tests with 'is' cannot be chained");
    }
    Adopt(*test, test->arguments.positional.emplace_back(), ParsePostfix(ParsePrimary()));
  }
  if (!negated) {
    return test;
  }
  auto negation = std::make_unique<Unary>();
  Adopt(*negation, negation->operand, std::move(test));
  return negation;
}

std::string ExpressionParser::ParseDottedName() {
  std::string name = tokens_.ExpectAnyName();
  while (tokens_.TakeOperator(".")) {
    name += '.';
    name += tokens_.ExpectAnyName();
  }
  return name;
}

ArgumentList ExpressionParser::ParseArguments(Expression& node) {
  ArgumentList arguments;
  tokens_.ExpectOperator("(");
  while (!tokens_.failed() && !tokens_.IsOperator(")")) {
    ParseArgument(node, arguments);
    if (!tokens_.TakeOperator(",")) {
      break;
    }
  }
  tokens_.ExpectOperator(")");
  return arguments;
}

void ExpressionParser::ParseArgument(Expression& node, ArgumentList& arguments) {
  const bool behind_named = !arguments.named.empty() || arguments.more_named != nullptr;
  if (tokens_.TakeOperator("**")) {
    if (arguments.more_named != nullptr) {
      tokens_.Fail("a call has more than one **");
    }
    Adopt(node, arguments.more_named, ParseExpression());
  } else if (tokens_.TakeOperator("*")) {
    if (arguments.more_positional != nullptr || arguments.more_named != nullptr) {
      tokens_.Fail("a call has a * behind another one");
    }
    Adopt(node, arguments.more_positional, ParseExpression());
  } else if (tokens_.Is(Kind::kName) && tokens_.following().kind == Kind::kOperator &&
             tokens_.following().text == "=") {
    if (arguments.more_named != nullptr) {
      tokens_.Fail("a call has an argument behind **");
    }
    std::string name = tokens_.Take().text;
    tokens_.Take();
    arguments.named.emplace_back(std::move(name), nullptr);
    Adopt(node, arguments.named.back().second, ParseExpression());
  } else {
    if (behind_named || arguments.more_positional != nullptr) {
      tokens_.Fail("a call has an argument without a name behind one with a name");
    }
    Adopt(node, arguments.positional.emplace_back(), ParseExpression());
  }
}

Target ExpressionParser::ParseTarget(bool allow_tuple) {
  ++depth;
  Target target;
  if (DepthIsAllowed() && tokens_.TakeOperator("(")) {
    target = ParseTarget(true);
    tokens_.ExpectOperator(")");
  } else {
    target.name = tokens_.ExpectAnyName();
    if (tokens_.TakeOperator(".")) {
      target.attribute = tokens_.ExpectAnyName();
    }
  }
  --depth;
  if (!allow_tuple || !tokens_.IsOperator(",")) {
    return target;
  }
  Target tuple;
  tuple.is_tuple = true;
  tuple.parts.push_back(std::move(target));
  while (tokens_.TakeOperator(",")) {
    if (!tokens_.IsOperator("(") && (!tokens_.Is(Kind::kName) || tokens_.IsName("in"))) {
      break;
    }
    tuple.parts.push_back(ParseTarget(false));
  }
  return tuple;
}

}  // namespace nibble::jinja
