// Carries out a parsed template, as Jinja with default settings would in the sandbox that
// transformers uses: Python's scopes, undefined values that print as nothing, no way to change a
// list or a dict.

#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/engine/chat/arguments.h"
#include "server/engine/chat/scope.h"
#include "server/engine/chat/syntax_tree.h"

namespace nibble::jinja {

// What strftime_now shows.
struct Clock {
  absl::Time now;
  absl::TimeZone zone;
};

// One rendering. Errors are in `run`; see there.
class Interpreter {
 public:
  // All must outlive it.
  Interpreter(Run& run, const Clock& clock);
  // Ends what holds itself: namespaces and the scopes of macros.
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // What `body` prints with these variables.
  //
  // Requires: `body`, and the names of the variables, outlive the interpreter.
  std::string Render(const Body& body, std::vector<std::pair<absl::string_view, Value>> variables);

  Run& run() { return run_; }
  const Clock& clock() const { return clock_; }

  // object.name, and object[index]: either falls back to the other, as Jinja has it.
  //
  // Errors: in the run if `object` is undefined.
  Value GetAttribute(const Value& object, absl::string_view name);
  Value GetItem(const Value& object, const Value& index);

  Value CallValue(const Value& callee, const Arguments& arguments);
  Value ApplyFilter(absl::string_view name, const Value& input, const Arguments& arguments);
  bool ApplyTest(absl::string_view name, const Value& input, const Arguments& arguments);

  // For the objects of this folder.
  Value CallMacro(const MacroStatement& macro, const std::shared_ptr<Scope>& scope,
                  const Arguments& arguments);
  Value MakeNamespace(std::vector<std::pair<std::string, Value>> attributes);
  // What `loop(items)` prints: the body of a recursive loop, a level further in.
  Value CallLoop(const ForStatement& loop, const std::shared_ptr<Scope>& scope, const Value& items,
                 int64_t level);
  // Whether a loop over `item` goes on to its body, as its condition says.
  bool LoopAdmits(const ForStatement& loop, const std::shared_ptr<Scope>& scope, const Value& item);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  Flow Execute(const Body& body);
  Flow ExecuteStatement(const Statement& statement);
  Flow ExecuteIf(const IfStatement& statement);
  void ExecuteFor(const ForStatement& loop, const Value& items, int64_t level);
  void ExecuteMacro(const MacroStatement& statement);
  void ExecuteCallBlock(const CallBlockStatement& statement);
  void ExecuteWith(const WithStatement& statement);
  void Print(const Value& value);
  // What `body` prints, in a scope of its own.
  Value Capture(const Body& body);
  // A body that is no loop's: nothing leaves it before its end.
  void ExecuteInScope(const Body& body);
  void Assign(const Target& target, const Value& value);
  std::shared_ptr<Scope> KeepScope();
  Value MakeMacro(const MacroStatement& statement);

  Value Evaluate(const Expression& expression);
  Value EvaluateNode(const Expression& expression);
  Value EvaluateName(const Name& name);
  Value EvaluateList(const ListDisplay& list);
  Value EvaluateDict(const DictDisplay& dict);
  Value EvaluateUnary(const Unary& unary);
  Value EvaluateLogic(const Logic& logic);
  Value EvaluateComparison(const Comparison& comparison);
  Value EvaluateConcatenation(const Concatenation& concatenation);
  Value EvaluateConditional(const Conditional& conditional);
  Value EvaluateItem(const ItemAccess& access);
  Value EvaluateSlice(const Value& object, const Slice& slice);
  Value EvaluateCall(const Call& call);
  Value EvaluateFilter(const Filter& filter, const Value* block_text);
  Value EvaluateTest(const Test& test);
  Arguments EvaluateArguments(const ArgumentList& list);
  void BindParameters(const MacroStatement& macro, const Arguments& arguments);
  void BindRest(const MacroStatement& macro, const Arguments& arguments,
                std::vector<std::pair<std::string, Value>> named);

  Run& run_;
  const Clock& clock_;
  int depth_ = 0;
  Output* output_ = nullptr;  // Where print goes.
  std::shared_ptr<Scope> scope_;
  std::vector<std::pair<absl::string_view, Value>> globals_;
  // What may hold itself, each once.
  std::vector<std::shared_ptr<Scope>> kept_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace nibble::jinja
