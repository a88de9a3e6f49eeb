// Expressions, with Python's precedence and Jinja's filters and tests.

#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/chat/syntax_tree.h"
#include "server/engine/chat/token_stream.h"

namespace nibble::jinja {

// Parses what is at hand in a stream. After an error of the stream what it gives is not to be used,
// and may be null.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  // One that ends before a comma.
  ExpressionPointer ParseExpression();
  // Commas make a tuple. Without conditionals an `if` ends it, and so does `recursive`: what a
  // `for` goes over.
  ExpressionPointer ParseTuple(bool with_conditional, bool may_be_empty = false);
  // Filters without what they are applied to: `upper | replace('a', 'b')`.
  ExpressionPointer ParseFilters();
  Target ParseTarget(bool allow_tuple);

  // Levels of blocks and expressions at hand. The parser of statements counts its own here.
  int depth = 0;
  // Fails the stream, and is false, when there are too many.
  bool DepthIsAllowed();

  // The macros at hand, so that each learns which special names it uses.
  std::vector<MacroStatement*> macros;

 private:
  ExpressionPointer ParseConditional();
  ExpressionPointer ParseOr();
  ExpressionPointer ParseAnd();
  ExpressionPointer ParseNot();
  ExpressionPointer ParseComparison();
  ExpressionPointer ParseSum();
  ExpressionPointer ParseConcatenation();
  ExpressionPointer ParseProduct();
  ExpressionPointer ParsePower();
  ExpressionPointer ParseUnary(bool with_filters);
  ExpressionPointer ParsePrimary();
  ExpressionPointer ParseName();
  ExpressionPointer ParseString();
  ExpressionPointer ParseNumber();
  ExpressionPointer ParseList();
  ExpressionPointer ParseDict();
  ExpressionPointer ParsePostfix(ExpressionPointer node);
  ExpressionPointer ParseFiltersAndTests(ExpressionPointer node);
  ExpressionPointer ParseAttribute(ExpressionPointer object);
  ExpressionPointer ParseItem(ExpressionPointer object);
  ExpressionPointer ParseSubscript();
  ExpressionPointer ParseCall(ExpressionPointer callee);
  ExpressionPointer ParseFilter(ExpressionPointer operand);
  ExpressionPointer ParseTest(ExpressionPointer operand);
  ArgumentList ParseArguments(Expression& node);
  void ParseArgument(Expression& node, ArgumentList& arguments);
  std::string ParseDottedName();
  bool TupleEnds(bool with_conditional) const;

  template <size_t count>
  ExpressionPointer ParseArithmetic(
      ExpressionPointer (ExpressionParser::*parse_operand)(),
      const std::array<std::pair<absl::string_view, Arithmetic>, count>& operators);

  // Makes `child` a part of `node`, which counts its levels.
  void Adopt(Expression& node, ExpressionPointer& place, ExpressionPointer child);

  TokenStream& tokens_;
};

}  // namespace nibble::jinja
