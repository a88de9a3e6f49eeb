// The macros' part of Interpreter.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/macro.h"

namespace nibble::jinja {
namespace {

// Takes the argument of this name out of `named`; false if there is none.
bool TakeNamed(std::vector<std::pair<std::string, Value>>& named, absl::string_view name,
               Value& value) {
  const auto found = std::find_if(named.begin(), named.end(),
                                  [&](const auto& argument) { return argument.first == name; });
  if (found == named.end()) {
    return false;
  }
  value = std::move(found->second);
  named.erase(found);
  return true;
}

}  // namespace

std::shared_ptr<Scope> Interpreter::KeepScope() {
  if (kept_scopes_.empty() || kept_scopes_.back() != scope_) {
    scope_->charge.Add(sizeof(scope_));
    kept_scopes_.push_back(scope_);
  }
  return scope_;
}

Value Interpreter::MakeMacro(const MacroStatement& statement) {
  return Value(
      std::shared_ptr<Object>(std::make_shared<MacroObject>(&run_, statement, KeepScope())));
}

void Interpreter::ExecuteMacro(const MacroStatement& statement) {
  scope_->Set(statement.name, MakeMacro(statement));
}

void Interpreter::ExecuteCallBlock(const CallBlockStatement& statement) {
  const auto& call = static_cast<const Call&>(*statement.call);
  const Value callee = Evaluate(*call.callee);
  Arguments arguments = EvaluateArguments(call.arguments);
  arguments.named.emplace_back("caller", MakeMacro(*statement.caller));
  Print(CallValue(callee, arguments));
}

Value Interpreter::CallMacro(const MacroStatement& macro, const std::shared_ptr<Scope>& scope,
                             const Arguments& arguments) {
  const DepthGuard depth(run_, depth_);
  if (!run_.Step()) {
    return Value();
  }
  const int line = run_.line();
  Output captured(run_);
  Output* const outer = std::exchange(output_, &captured);
  {
    const ScopeGuard guard(run_, scope_, scope);
    BindParameters(macro, arguments);
    Execute(macro.body);
  }
  output_ = outer;
  if (!run_.failed()) {
    run_.set_line(line);
  }
  return MakeText(&run_, captured.Take());
}

// Positional arguments first, then named ones, then defaults, which see the parameters before them.
void Interpreter::BindParameters(const MacroStatement& macro, const Arguments& arguments) {
  std::vector<std::pair<std::string, Value>> named = arguments.named;
  const size_t first_default = macro.parameters.size() - macro.defaults.size();
  run_.StepLookups(macro.parameters.size() * (macro.parameters.size() + named.size()));
  for (size_t i = 0; i < macro.parameters.size() && !run_.failed(); ++i) {
    const std::string& name = macro.parameters[i];
    Value given;
    if (i < arguments.positional.size()) {
      scope_->Set(name, arguments.positional[i]);
    } else if (TakeNamed(named, name, given)) {
      scope_->Set(name, std::move(given));
    } else if (i >= first_default) {
      scope_->Set(name, Evaluate(*macro.defaults[i - first_default]));
    } else {
      scope_->Set(name, Value::UndefinedBecause(
                            run_, absl::StrCat("parameter '", name, "' was not provided")));
    }
  }
  BindRest(macro, arguments, std::move(named));
}

// What Jinja gives a macro that mentions it: the caller of a call block, and what is left over.
void Interpreter::BindRest(const MacroStatement& macro, const Arguments& arguments,
                           std::vector<std::pair<std::string, Value>> named) {
  const bool has_caller_parameter = std::find(macro.parameters.begin(), macro.parameters.end(),
                                              "caller") != macro.parameters.end();
  if (macro.uses_caller && !has_caller_parameter) {
    Value caller = Value::UndefinedBecause(run_, "no caller is defined");
    TakeNamed(named, "caller", caller);
    scope_->Set("caller", std::move(caller));
  }
  if (macro.uses_kwargs) {
    Pairs rest;
    for (auto& [name, value] : named) {
      rest.emplace_back(MakeText(&run_, name), std::move(value));
    }
    scope_->Set("kwargs", MakeMap(run_, std::move(rest)));
  } else if (!named.empty()) {
    run_.Fail(
        absl::StrCat("macro '", macro.name, "' takes no argument named '", named[0].first, "'"));
  }
  const size_t taken = std::min(macro.parameters.size(), arguments.positional.size());
  if (macro.uses_varargs) {
    scope_->Set("varargs",
                MakeSequence(&run_, Flavor::kTuple,
                             {arguments.positional.begin() + static_cast<std::ptrdiff_t>(taken),
                              arguments.positional.end()}));
  } else if (taken < arguments.positional.size()) {
    run_.Fail(absl::StrCat("macro '", macro.name, "' takes not more than ", macro.parameters.size(),
                           " arguments"));
  }
}

}  // namespace nibble::jinja
