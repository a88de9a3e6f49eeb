#include "server/engine/chat/expression_parser.h"

#include <algorithm>
#include <optional>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/engine/chat/limits.h"

namespace nibble::jinja {
namespace {

using Kind = Token::Kind;

absl::Status TooDeep(int line) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "chat template, line ", line, ": nested more than ", kTreeDepthMax, " levels deep"));
}

std::optional<Relation> RelationOf(const TokenStream& tokens) {
  static constexpr std::array<std::pair<absl::string_view, Relation>, 6> kRelations = {
      {{"==", Relation::kEqual},
       {"!=", Relation::kNotEqual},
       {"<", Relation::kLess},
       {"<=", Relation::kLessEqual},
       {">", Relation::kGreater},
       {">=", Relation::kGreaterEqual}}};
  for (const auto& [op, relation] : kRelations) {
    if (tokens.IsOperator(op)) {
      return relation;
    }
  }
  if (tokens.IsName("in")) {
    return Relation::kIn;
  }
  const bool not_in = tokens.IsName("not") && tokens.following().kind == Kind::kName &&
                      tokens.following().text == "in";
  return not_in ? std::optional(Relation::kNotIn) : std::nullopt;
}

}  // namespace

bool ExpressionParser::DepthIsAllowed() {
  if (depth > kTreeDepthMax) {
    tokens_.FailWith(TooDeep(tokens_.line()));
  }
  return !tokens_.failed();
}

void ExpressionParser::Adopt(Expression& node, ExpressionPointer& place, ExpressionPointer child) {
  if (child != nullptr) {
    node.depth = std::max(node.depth, child->depth + 1);
    if (node.depth > kTreeDepthMax) {
      tokens_.FailWith(TooDeep(tokens_.line()));
    }
  }
  place = std::move(child);
}

ExpressionPointer ExpressionParser::ParseExpression() { return ParseConditional(); }

bool ExpressionParser::TupleEnds(bool with_conditional) const {
  return tokens_.Is(Kind::kPrintEnd) || tokens_.Is(Kind::kBlockEnd) || tokens_.Is(Kind::kEnd) ||
         tokens_.IsOperator(")") || (!with_conditional && tokens_.IsName("recursive"));
}

ExpressionPointer ExpressionParser::ParseTuple(bool with_conditional, bool may_be_empty) {
  auto tuple = std::make_unique<ListDisplay>();
  tuple->flavor = Flavor::kTuple;
  bool is_tuple = false;
  while (!tokens_.failed() && !TupleEnds(with_conditional)) {
    Adopt(*tuple, tuple->items.emplace_back(), with_conditional ? ParseConditional() : ParseOr());
    if (!tokens_.TakeOperator(",")) {
      break;
    }
    is_tuple = true;
  }
  if (!is_tuple && tuple->items.size() == 1) {
    return std::move(tuple->items[0]);
  }
  if (tuple->items.empty() && !may_be_empty) {
    tokens_.FailExpecting("an expression");
  }
  return tuple;
}

ExpressionPointer ExpressionParser::ParseConditional() {
  ++depth;
  const absl::Cleanup leave = [&] { --depth; };
  if (!DepthIsAllowed()) {
    return nullptr;
  }
  ExpressionPointer node = ParseOr();
  while (tokens_.TakeName("if")) {
    auto conditional = std::make_unique<Conditional>();
    Adopt(*conditional, conditional->then, std::move(node));
    Adopt(*conditional, conditional->condition, ParseOr());
    if (tokens_.TakeName("else")) {
      Adopt(*conditional, conditional->otherwise, ParseConditional());
    }
    node = std::move(conditional);
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseOr() {
  ExpressionPointer node = ParseAnd();
  while (tokens_.TakeName("or")) {
    auto logic = std::make_unique<Logic>();
    Adopt(*logic, logic->left, std::move(node));
    Adopt(*logic, logic->right, ParseAnd());
    node = std::move(logic);
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseAnd() {
  ExpressionPointer node = ParseNot();
  while (tokens_.TakeName("and")) {
    auto logic = std::make_unique<Logic>();
    logic->is_and = true;
    Adopt(*logic, logic->left, std::move(node));
    Adopt(*logic, logic->right, ParseNot());
    node = std::move(logic);
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseNot() {
  if (!tokens_.TakeName("not")) {
    return ParseComparison();
  }
  ++depth;
  const absl::Cleanup leave = [&] { --depth; };
  if (!DepthIsAllowed()) {
    return nullptr;
  }
  auto node = std::make_unique<Unary>();
  Adopt(*node, node->operand, ParseNot());
  return node;
}

ExpressionPointer ExpressionParser::ParseComparison() {
  ExpressionPointer node = ParseSum();
  if (!RelationOf(tokens_).has_value()) {
    return node;
  }
  auto comparison = std::make_unique<Comparison>();
  Adopt(*comparison, comparison->first, std::move(node));
  while (const auto relation = RelationOf(tokens_)) {
    tokens_.Take();
    if (*relation == Relation::kNotIn) {
      tokens_.Take();
    }
    comparison->others.emplace_back(*relation, nullptr);
    Adopt(*comparison, comparison->others.back().second, ParseSum());
  }
  return comparison;
}

template <size_t count>
ExpressionPointer ExpressionParser::ParseArithmetic(
    ExpressionPointer (ExpressionParser::*parse_operand)(),
    const std::array<std::pair<absl::string_view, Arithmetic>, count>& operators) {
  ExpressionPointer node = (this->*parse_operand)();
  while (!tokens_.failed()) {
    const auto found = std::find_if(operators.begin(), operators.end(), [&](const auto& candidate) {
      return tokens_.IsOperator(candidate.first);
    });
    if (found == operators.end()) {
      break;
    }
    tokens_.Take();
    auto binary = std::make_unique<Binary>();
    binary->op = found->second;
    Adopt(*binary, binary->left, std::move(node));
    Adopt(*binary, binary->right, (this->*parse_operand)());
    node = std::move(binary);
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseSum() {
  static constexpr std::array<std::pair<absl::string_view, Arithmetic>, 2> kOperators = {
      {{"+", Arithmetic::kAdd}, {"-", Arithmetic::kSubtract}}};
  return ParseArithmetic(&ExpressionParser::ParseConcatenation, kOperators);
}

// Binds closer than + in Jinja.
ExpressionPointer ExpressionParser::ParseConcatenation() {
  ExpressionPointer node = ParseProduct();
  if (!tokens_.IsOperator("~")) {
    return node;
  }
  auto concatenation = std::make_unique<Concatenation>();
  Adopt(*concatenation, concatenation->parts.emplace_back(), std::move(node));
  while (tokens_.TakeOperator("~")) {
    Adopt(*concatenation, concatenation->parts.emplace_back(), ParseProduct());
  }
  return concatenation;
}

ExpressionPointer ExpressionParser::ParseProduct() {
  static constexpr std::array<std::pair<absl::string_view, Arithmetic>, 4> kOperators = {
      {{"*", Arithmetic::kMultiply},
       {"/", Arithmetic::kDivide},
       {"//", Arithmetic::kFloorDivide},
       {"%", Arithmetic::kModulo}}};
  return ParseArithmetic(&ExpressionParser::ParsePower, kOperators);
}

ExpressionPointer ExpressionParser::ParsePower() {
  // From left to right in Jinja, unlike Python, and looser than a minus in front.
  ExpressionPointer node = ParseUnary(true);
  while (tokens_.TakeOperator("**")) {
    auto binary = std::make_unique<Binary>();
    binary->op = Arithmetic::kPower;
    Adopt(*binary, binary->left, std::move(node));
    Adopt(*binary, binary->right, ParseUnary(true));
    node = std::move(binary);
  }
  return node;
}

ExpressionPointer ExpressionParser::ParseUnary(bool with_filters) {
  ++depth;
  const absl::Cleanup leave = [&] { --depth; };
  if (!DepthIsAllowed()) {
    return nullptr;
  }
  ExpressionPointer node;
  const bool negative = tokens_.TakeOperator("-");
  if (negative || tokens_.TakeOperator("+")) {
    auto unary = std::make_unique<Unary>();
    unary->op = negative ? Unary::Operator::kNegative : Unary::Operator::kPositive;
    Adopt(*unary, unary->operand, ParseUnary(false));
    node = std::move(unary);
  } else {
    node = ParsePrimary();
  }
  node = ParsePostfix(std::move(node));
  return with_filters ? ParseFiltersAndTests(std::move(node)) : std::move(node);
}

}  // namespace nibble::jinja
