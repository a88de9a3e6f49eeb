#include "server/engine/chat/parser.h"

#include <initializer_list>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "loader/printable.h"
#include "server/engine/chat/expression_parser.h"
#include "server/engine/chat/limits.h"

namespace nibble::jinja {
namespace {

using Kind = Token::Kind;
using StatementPointer = std::unique_ptr<Statement>;
using Names = std::initializer_list<absl::string_view>;

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens)
      : tokens_(std::move(tokens)), expressions_(tokens_) {}

  absl::StatusOr<Body> Run() {
    Body body = ParseBody({});
    if (tokens_.failed()) {
      return tokens_.status();
    }
    return body;
  }

 private:
  // Statements up to a block that begins with one of these names, which is left behind its `{%`.
  Body ParseBody(Names ends) {
    ++expressions_.depth;
    const absl::Cleanup leave = [&] { --expressions_.depth; };
    Body body;
    while (expressions_.DepthIsAllowed() && !tokens_.Is(Kind::kEnd)) {
      if (tokens_.Is(Kind::kBlockBegin)) {
        tokens_.Take();
        if (AtAny(ends)) {
          return body;
        }
        AddBlock(body);
      } else {
        AddText(body);
      }
    }
    if (ends.size() > 0) {
      tokens_.FailExpecting(absl::StrCat("'", absl::StrJoin(ends, "' or '"), "'"));
    }
    return body;
  }

  bool AtAny(Names names) const {
    for (const absl::string_view name : names) {
      if (tokens_.IsName(name)) {
        return true;
      }
    }
    return false;
  }

  // The body of a block, its end tag included.
  Body ParseBlockBody(absl::string_view end) {
    tokens_.Expect(Kind::kBlockEnd, "'%}'");
    Body body = ParseBody({end});
    EndBlock();
    return body;
  }

  // Behind the last of a body: passes the name that ended it.
  void EndBlock() {
    tokens_.Take();
    tokens_.Expect(Kind::kBlockEnd, "'%}'");
  }

  void AddText(Body& body) {
    const int line = tokens_.line();
    if (tokens_.Is(Kind::kText)) {
      auto text = std::make_unique<TextStatement>(Statement::Kind::kText, line);
      text->text = tokens_.Take().text;
      body.push_back(std::move(text));
      return;
    }
    tokens_.Expect(Kind::kPrintBegin, "text or a tag");
    body.push_back(Print(line));
    tokens_.Expect(Kind::kPrintEnd, "'}}'");
  }

  StatementPointer Print(int line) {
    auto print = std::make_unique<PrintStatement>(Statement::Kind::kPrint, line);
    print->value = expressions_.ParseTuple(true);
    return print;
  }

  void AddBlock(Body& body) {
    const int line = tokens_.line();
    const std::string name = tokens_.ExpectAnyName();
    if (tokens_.failed()) {
      return;
    }
    StatementPointer block = ParseBlock(name, line);
    if (block == nullptr) {
      tokens_.Fail(absl::StrCat("unknown tag ", Printable(name)));
      return;
    }
    body.push_back(std::move(block));
  }

  // A block whose name was passed; null if there is none of this name.
  StatementPointer ParseBlock(absl::string_view name, int line) {
    if (name == "if") return If(line);
    if (name == "for") return For(line);
    if (name == "set") return Set(line);
    if (name == "macro") return Macro(line);
    if (name == "call") return CallBlock(line);
    if (name == "filter") return FilterBlock(line);
    if (name == "with") return With(line);
    if (name == "generation") return Generation(line);
    if (name == "break" || name == "continue") return Jump(name, line);
    if (name == "print") {
      StatementPointer print = Print(line);
      tokens_.Expect(Kind::kBlockEnd, "'%}'");
      return print;
    }
    return nullptr;
  }

  StatementPointer If(int line) {
    auto node = std::make_unique<IfStatement>(Statement::Kind::kIf, line);
    do {
      auto& [condition, body] = node->branches.emplace_back();
      condition = expressions_.ParseTuple(false);
      tokens_.Expect(Kind::kBlockEnd, "'%}'");
      body = ParseBody({"elif", "else", "endif"});
    } while (tokens_.TakeName("elif"));
    if (tokens_.TakeName("else")) {
      node->otherwise = ParseBlockBody("endif");
    } else {
      EndBlock();
    }
    return node;
  }

  StatementPointer For(int line) {
    auto node = std::make_unique<ForStatement>(Statement::Kind::kFor, line);
    node->target = expressions_.ParseTarget(true);
    if (!tokens_.TakeName("in")) {
      tokens_.FailExpecting("'in'");
    }
    node->items = expressions_.ParseTuple(false);
    if (tokens_.TakeName("if")) {
      node->condition = expressions_.ParseExpression();
    }
    node->is_recursive = tokens_.TakeName("recursive");
    tokens_.Expect(Kind::kBlockEnd, "'%}'");
    ++loop_depth_;
    node->body = ParseBody({"else", "endfor"});
    --loop_depth_;
    if (tokens_.TakeName("else")) {
      node->otherwise = ParseBlockBody("endfor");
    } else {
      EndBlock();
    }
    return node;
  }

  StatementPointer Set(int line) {
    Target target = expressions_.ParseTarget(true);
    if (tokens_.TakeOperator("=")) {
      auto node = std::make_unique<SetStatement>(Statement::Kind::kSet, line);
      node->target = std::move(target);
      node->value = expressions_.ParseTuple(true);
      tokens_.Expect(Kind::kBlockEnd, "'%}'");
      return node;
    }
    auto node = std::make_unique<SetBlockStatement>(Statement::Kind::kSetBlock, line);
    node->target = std::move(target);
    if (tokens_.TakeOperator("|")) {
      node->filter = expressions_.ParseFilters();
    }
    node->body = ParseBlockBody("endset");
    return node;
  }

  void ParseParameters(MacroStatement& macro) {
    tokens_.ExpectOperator("(");
    while (!tokens_.failed() && !tokens_.IsOperator(")")) {
      macro.parameters.push_back(tokens_.ExpectAnyName());
      if (tokens_.TakeOperator("=")) {
        macro.defaults.push_back(expressions_.ParseExpression());
      } else if (!macro.defaults.empty()) {
        tokens_.Fail("a parameter without a default stands behind one that has one");
      }
      if (!tokens_.TakeOperator(",")) {
        break;
      }
    }
    tokens_.ExpectOperator(")");
  }

  // A body of its own: a loop around it cannot be left from within.
  void ParseMacroBody(MacroStatement& macro, absl::string_view end) {
    expressions_.macros.push_back(&macro);
    const int loops = std::exchange(loop_depth_, 0);
    macro.body = ParseBlockBody(end);
    loop_depth_ = loops;
    expressions_.macros.pop_back();
  }

  StatementPointer Macro(int line) {
    auto node = std::make_unique<MacroStatement>(Statement::Kind::kMacro, line);
    node->name = tokens_.ExpectAnyName();
    ParseParameters(*node);
    ParseMacroBody(*node, "endmacro");
    return node;
  }

  StatementPointer CallBlock(int line) {
    auto node = std::make_unique<CallBlockStatement>(Statement::Kind::kCallBlock, line);
    node->caller = std::make_unique<MacroStatement>(Statement::Kind::kMacro, line);
    node->caller->name = "caller";
    if (tokens_.IsOperator("(")) {
      ParseParameters(*node->caller);
    }
    node->call = expressions_.ParseExpression();
    if (node->call != nullptr && node->call->kind != Expression::Kind::kCall) {
      tokens_.FailExpecting("a call");
    }
    ParseMacroBody(*node->caller, "endcall");
    return node;
  }

  StatementPointer FilterBlock(int line) {
    auto node = std::make_unique<FilterBlockStatement>(Statement::Kind::kFilterBlock, line);
    node->filter = expressions_.ParseFilters();
    node->body = ParseBlockBody("endfilter");
    return node;
  }

  StatementPointer With(int line) {
    auto node = std::make_unique<WithStatement>(Statement::Kind::kWith, line);
    while (!tokens_.failed() && !tokens_.Is(Kind::kBlockEnd)) {
      Target target = expressions_.ParseTarget(false);
      tokens_.ExpectOperator("=");
      node->values.emplace_back(std::move(target), expressions_.ParseExpression());
      if (!tokens_.TakeOperator(",")) {
        break;
      }
    }
    node->body = ParseBlockBody("endwith");
    return node;
  }

  StatementPointer Generation(int line) {
    auto node = std::make_unique<ScopeStatement>(Statement::Kind::kScope, line);
    const int loops = std::exchange(loop_depth_, 0);
    node->body = ParseBlockBody("endgeneration");
    loop_depth_ = loops;
    return node;
  }

  StatementPointer Jump(absl::string_view name, int line) {
    if (loop_depth_ == 0) {
      tokens_.Fail(absl::StrCat("'", name, "' outside of a loop"));
    }
    tokens_.Expect(Kind::kBlockEnd, "'%}'");
    return std::make_unique<Statement>(
        name == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue, line);
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int loop_depth_ = 0;  // Loops that a `break` here could leave.
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(absl::string_view source) {
  if (static_cast<int64_t>(source.size()) > kTemplateBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("chat template: has ", source.size(),
                                                   " bytes, allowed are ", kTemplateBytesMax));
  }
  if (!IsUtf8(source)) {
    return absl::InvalidArgumentError("chat template: is not UTF-8");
  }
  auto tokens = Tokenize(source);
  if (!tokens.ok()) {
    return tokens.status();
  }
  return StatementParser(*std::move(tokens)).Run();
}

}  // namespace nibble::jinja
