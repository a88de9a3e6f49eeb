// The statements' half of Interpreter.

#include "absl/strings/str_cat.h"
#include "server/engine/chat/global_functions.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/loop.h"
#include "server/engine/chat/python_text.h"

namespace nibble::jinja {

Interpreter::Interpreter(Run& run, const Clock& clock)
    : run_(run), clock_(clock), globals_(MakeGlobals(run)) {}

Interpreter::~Interpreter() {
  scope_ = nullptr;
  // One by one, and each is held here until it is empty: so that no destructor runs into the next.
  for (const auto& kept : namespaces_) {
    kept->attributes.clear();
  }
  for (const auto& kept : kept_scopes_) {
    kept->variables.clear();
  }
  for (const auto& kept : kept_scopes_) {
    kept->parent = nullptr;
  }
}

std::string Interpreter::Render(const Body& body,
                                std::vector<std::pair<absl::string_view, Value>> variables) {
  Output output(run_);
  output_ = &output;
  scope_ = MakeScope(run_, nullptr);
  scope_->variables = std::move(variables);
  // Jinja's own globals are behind the variables, and what a template sets is before them.
  const ScopeGuard guard(run_, scope_, scope_);
  Execute(body);
  return output.Take();
}

Interpreter::Flow Interpreter::Execute(const Body& body) {
  const DepthGuard guard(run_, depth_);
  for (const auto& statement : body) {
    if (!run_.Step()) {
      break;
    }
    run_.set_line(statement->line);
    const Flow flow = ExecuteStatement(*statement);
    if (flow != Flow::kNext) {
      return flow;
    }
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteStatement(const Statement& statement) {
  using Kind = Statement::Kind;
  switch (statement.kind) {
    case Kind::kText:
      output_->Append(static_cast<const TextStatement&>(statement).text);
      break;
    case Kind::kPrint:
      Print(Evaluate(*static_cast<const PrintStatement&>(statement).value));
      break;
    case Kind::kIf:
      return ExecuteIf(static_cast<const IfStatement&>(statement));
    case Kind::kFor: {
      const auto& loop = static_cast<const ForStatement&>(statement);
      ExecuteFor(loop, Evaluate(*loop.items), 0);
      break;
    }
    case Kind::kSet: {
      const auto& set = static_cast<const SetStatement&>(statement);
      Assign(set.target, Evaluate(*set.value));
      break;
    }
    case Kind::kSetBlock: {
      const auto& set = static_cast<const SetBlockStatement&>(statement);
      const Value text = Capture(set.body);
      Assign(set.target, set.filter == nullptr
                             ? text
                             : EvaluateFilter(static_cast<const Filter&>(*set.filter), &text));
      break;
    }
    case Kind::kMacro:
      ExecuteMacro(static_cast<const MacroStatement&>(statement));
      break;
    case Kind::kCallBlock:
      ExecuteCallBlock(static_cast<const CallBlockStatement&>(statement));
      break;
    case Kind::kFilterBlock: {
      const auto& block = static_cast<const FilterBlockStatement&>(statement);
      const Value text = Capture(block.body);
      Print(EvaluateFilter(static_cast<const Filter&>(*block.filter), &text));
      break;
    }
    case Kind::kWith:
      ExecuteWith(static_cast<const WithStatement&>(statement));
      break;
    case Kind::kScope:
      ExecuteInScope(static_cast<const ScopeStatement&>(statement).body);
      break;
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

void Interpreter::Print(const Value& value) {
  if (value.text() != nullptr) {
    output_->Append(value.text()->bytes);
  } else if (!value.is_undefined()) {
    output_->Append(ToText(run_, value));
  }
}

Interpreter::Flow Interpreter::ExecuteIf(const IfStatement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    if (Evaluate(*condition).Truth()) {
      return Execute(body);
    }
    if (run_.failed()) {
      return Flow::kNext;
    }
  }
  return Execute(statement.otherwise);
}

void Interpreter::ExecuteInScope(const Body& body) {
  const ScopeGuard guard(run_, scope_, scope_);
  Execute(body);
}

Value Interpreter::Capture(const Body& body) {
  Output captured(run_);
  Output* const outer = std::exchange(output_, &captured);
  ExecuteInScope(body);
  output_ = outer;
  return MakeText(&run_, captured.Take());
}

bool Interpreter::LoopAdmits(const ForStatement& loop, const std::shared_ptr<Scope>& scope,
                             const Value& item) {
  if (loop.condition == nullptr) {
    return true;
  }
  const ScopeGuard guard(run_, scope_, scope);
  Assign(loop.target, item);
  return Evaluate(*loop.condition).Truth();
}

void Interpreter::ExecuteFor(const ForStatement& loop, const Value& items, int64_t level) {
  if (run_.failed()) {
    return;
  }
  const std::shared_ptr<Scope> outer = scope_;
  const auto object = std::make_shared<LoopObject>(*this, loop, outer, items, level);
  // As Jinja's: only an iteration that comes to the end of its body counts, so `else` runs also
  // where the first one breaks.
  bool is_empty = true;
  constexpr int64_t kStepsOfIteration = 2;  // For its scope.
  while (run_.Step(kStepsOfIteration) && object->Advance(*this)) {
    const ScopeGuard guard(run_, scope_, outer);
    Assign(loop.target, object->current());
    scope_->Set("loop", Value(std::shared_ptr<Object>(object)));
    const Flow flow = Execute(loop.body);
    if (flow == Flow::kBreak) {
      break;
    }
    is_empty &= flow == Flow::kContinue;
  }
  if (is_empty && !run_.failed()) {
    ExecuteInScope(loop.otherwise);
  }
}

Value Interpreter::CallLoop(const ForStatement& loop, const std::shared_ptr<Scope>& scope,
                            const Value& items, int64_t level) {
  const DepthGuard depth(run_, depth_);
  if (!run_.Step()) {
    return Value();
  }
  Output captured(run_);
  Output* const outer = std::exchange(output_, &captured);
  {
    const ScopeGuard guard(run_, scope_, scope);
    ExecuteFor(loop, items, level);
  }
  output_ = outer;
  return MakeText(&run_, captured.Take());
}

void Interpreter::Assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    const Items items(run_, value);
    if (items.size() != target.parts.size()) {
      run_.Fail(absl::StrCat("expected ", target.parts.size(), " values to unpack, found ",
                             items.size()));
      return;
    }
    for (size_t i = 0; i < items.size(); ++i) {
      Assign(target.parts[i], items[i]);
    }
    return;
  }
  if (target.attribute.empty()) {
    if (run_.StepLookups(scope_->variables.size())) {
      scope_->Set(target.name, value);
    }
    return;
  }
  Name name;
  name.name = target.name;
  Namespace* const attributes = EvaluateName(name).attributes();
  if (attributes == nullptr) {
    run_.Fail(
        absl::StrCat("attributes can be set of a namespace only; '", target.name, "' is none"));
    return;
  }
  SetAttribute(run_, *attributes, target.attribute, value);
}

void Interpreter::ExecuteWith(const WithStatement& statement) {
  std::vector<Value> values;
  for (const auto& [target, expression] : statement.values) {
    values.push_back(Evaluate(*expression));
  }
  const ScopeGuard guard(run_, scope_, scope_);
  for (size_t i = 0; i < values.size(); ++i) {
    Assign(statement.values[i].first, values[i]);
  }
  Execute(statement.body);
}

Value Interpreter::MakeNamespace(std::vector<std::pair<std::string, Value>> attributes) {
  const auto made = std::shared_ptr<Namespace>(new Namespace{{}, Charge(&run_, sizeof(Namespace))});
  namespaces_.push_back(made);
  for (auto& [name, value] : attributes) {
    SetAttribute(run_, *made, name, value);
  }
  return Value(made);
}

}  // namespace nibble::jinja
