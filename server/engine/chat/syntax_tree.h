// A parsed template. Nodes are plain data; interpreter.h says what they mean.

#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/chat/value.h"

namespace nibble::jinja {

struct Expression {
  enum class Kind {
    kLiteral,
    kName,
    kList,
    kDict,
    kUnary,
    kBinary,
    kLogic,
    kComparison,
    kConcatenation,
    kConditional,
    kAttribute,
    kItem,
    kSlice,
    kCall,
    kFilter,
    kTest,
  };

  explicit Expression(Kind kind_of_node) : kind(kind_of_node) {}
  virtual ~Expression() = default;

  const Kind kind;
  int depth = 1;  // Levels of the tree from here.
};

using ExpressionPointer = std::unique_ptr<Expression>;

// An Expression of one kind, so that a node's type and its `kind` cannot differ.
template <Expression::Kind node_kind>
struct Node : Expression {
  static constexpr Kind kKind = node_kind;
  Node() : Expression(node_kind) {}
};

struct Literal : Node<Expression::Kind::kLiteral> {
  Value value;
};

struct Name : Node<Expression::Kind::kName> {
  std::string name;
};

struct ListDisplay : Node<Expression::Kind::kList> {
  Flavor flavor = Flavor::kList;  // Or kTuple.
  std::vector<ExpressionPointer> items;
};

struct DictDisplay : Node<Expression::Kind::kDict> {
  std::vector<std::pair<ExpressionPointer, ExpressionPointer>> entries;
};

struct Unary : Node<Expression::Kind::kUnary> {
  enum class Operator { kNot, kNegative, kPositive };
  Operator op = Operator::kNot;
  ExpressionPointer operand;
};

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };

struct Binary : Node<Expression::Kind::kBinary> {
  Arithmetic op = Arithmetic::kAdd;
  ExpressionPointer left, right;
};

// `and`, `or`: the value of the operand that decides.
struct Logic : Node<Expression::Kind::kLogic> {
  bool is_and = false;
  ExpressionPointer left, right;
};

enum class Relation { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

// a < b <= c: all of them, up to the first that fails.
struct Comparison : Node<Expression::Kind::kComparison> {
  ExpressionPointer first;
  std::vector<std::pair<Relation, ExpressionPointer>> others;
};

// a ~ b ~ c.
struct Concatenation : Node<Expression::Kind::kConcatenation> {
  std::vector<ExpressionPointer> parts;
};

struct Conditional : Node<Expression::Kind::kConditional> {
  ExpressionPointer condition, then, otherwise;  // `otherwise` may be null.
};

struct AttributeAccess : Node<Expression::Kind::kAttribute> {
  ExpressionPointer object;
  std::string name;
};

struct ItemAccess : Node<Expression::Kind::kItem> {
  ExpressionPointer object, index;
};

// Only as the index of an ItemAccess. Any part may be null.
struct Slice : Node<Expression::Kind::kSlice> {
  ExpressionPointer start, stop, step;
};

struct ArgumentList {
  std::vector<ExpressionPointer> positional;
  std::vector<std::pair<std::string, ExpressionPointer>> named;
  ExpressionPointer more_positional;  // *args; may be null.
  ExpressionPointer more_named;       // **kwargs; may be null.
};

struct Call : Node<Expression::Kind::kCall> {
  ExpressionPointer callee;
  ArgumentList arguments;
};

struct Filter : Node<Expression::Kind::kFilter> {
  ExpressionPointer operand;  // Null where it is a block's text.
  std::string name;
  ArgumentList arguments;
};

struct Test : Node<Expression::Kind::kTest> {
  ExpressionPointer operand;
  std::string name;
  ArgumentList arguments;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

// What `set` and `for` give values to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;  // Empty but for a namespace's.
  std::vector<Target> parts;
  bool is_tuple = false;
};

struct Statement {
  enum class Kind {
    kText,
    kPrint,
    kIf,
    kFor,
    kSet,
    kSetBlock,
    kMacro,
    kCallBlock,
    kFilterBlock,
    kWith,
    kScope,
    kBreak,
    kContinue,
  };

  Statement(Kind kind_of_node, int at_line) : kind(kind_of_node), line(at_line) {}
  virtual ~Statement() = default;

  const Kind kind;
  const int line;
};

struct TextStatement : Statement {
  using Statement::Statement;
  std::string text;
};

struct PrintStatement : Statement {
  using Statement::Statement;
  ExpressionPointer value;
};

struct IfStatement : Statement {
  using Statement::Statement;
  std::vector<std::pair<ExpressionPointer, Body>> branches;
  Body otherwise;
};

struct ForStatement : Statement {
  using Statement::Statement;
  Target target;
  ExpressionPointer items, condition;  // `condition` may be null.
  Body body, otherwise;
  bool is_recursive = false;
};

struct SetStatement : Statement {
  using Statement::Statement;
  Target target;
  ExpressionPointer value;
};

struct SetBlockStatement : Statement {
  using Statement::Statement;
  Target target;
  ExpressionPointer filter;  // May be null.
  Body body;
};

struct MacroStatement : Statement {
  using Statement::Statement;
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPointer> defaults;  // Of the last parameters.
  Body body;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

// `call` is a print of a call whose `caller` is the macro that the block itself is.
struct CallBlockStatement : Statement {
  using Statement::Statement;
  std::unique_ptr<MacroStatement> caller;
  ExpressionPointer call;
};

struct FilterBlockStatement : Statement {
  using Statement::Statement;
  ExpressionPointer filter;
  Body body;
};

struct WithStatement : Statement {
  using Statement::Statement;
  std::vector<std::pair<Target, ExpressionPointer>> values;
  Body body;
};

// What is set within stays within: `generation`.
struct ScopeStatement : Statement {
  using Statement::Statement;
  Body body;
};

}  // namespace nibble::jinja
