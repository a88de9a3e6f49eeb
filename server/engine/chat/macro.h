// A macro as a value.

#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/interpreter.h"

namespace nibble::jinja {

// A definition and the scope that it was made in, which the interpreter keeps to its end: a macro
// is itself a variable there.
class MacroObject : public Object {
 public:
  MacroObject(Run* run, const MacroStatement& definition, std::shared_ptr<Scope> scope)
      : Object(run, 0), definition_(definition), scope_(std::move(scope)) {}

  std::string Shown() const override { return absl::StrCat("<Macro '", definition_.name, "'>"); }
  Value Call(Interpreter& interpreter, const Arguments& arguments) override {
    return interpreter.CallMacro(definition_, scope_, arguments);
  }
  Value GetAttribute(Interpreter& interpreter, absl::string_view name) override {
    return name == "name" ? MakeText(&interpreter.run(), definition_.name) : Value();
  }

 private:
  const MacroStatement& definition_;
  const std::shared_ptr<Scope> scope_;
};

}  // namespace nibble::jinja
