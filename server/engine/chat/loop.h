// What `loop` is within a for.

#pragma once

#include <memory>
#include <optional>
#include <string>

#include "server/engine/chat/interpreter.h"

namespace nibble::jinja {

// The place of a loop in its items. A condition (`for x in y if z`) is asked as late as Jinja asks
// it: the body may change what it depends on. So what the rest will be is known only to
// `loop.length` and `loop.last`, which look ahead.
class LoopObject : public Object {
 public:
  // `scope` is that around the loop. A loop may be kept for longer, by a namespace, and then has an
  // end.
  LoopObject(Interpreter& interpreter, const ForStatement& loop,
             const std::shared_ptr<Scope>& scope, const Value& items, int64_t level);

  // Goes to the next item; false if there is none.
  bool Advance(Interpreter& interpreter);
  const Value& current() const { return current_; }

  std::string Shown() const override;
  Value Call(Interpreter& interpreter, const Arguments& arguments) override;
  Value GetAttribute(Interpreter& interpreter, absl::string_view name) override;
  MethodFunction FindMethod(absl::string_view name) const override;

  int64_t index() const { return index_; }  // From 0.
  // Whether `shown` is other than at the last call.
  bool HasChanged(std::string shown);

 private:
  // The next item, which Advance will go to; none at the end.
  const std::optional<Value>& Peek(Interpreter& interpreter);
  int64_t Length(Interpreter& interpreter);
  std::optional<Value> TakeAdmitted(Interpreter& interpreter);

  const ForStatement& loop_;
  const std::weak_ptr<Scope> scope_;
  const Items items_;
  const int64_t level_;  // From 0, of a recursive loop.
  size_t next_ = 0;      // In items_.
  std::optional<size_t> length_;
  std::optional<Value> ahead_;  // What Peek has seen.
  bool looked_ahead_ = false;
  std::optional<Items> admitted_;  // Once Length was asked: the rest, of a loop with a condition.
  size_t admitted_next_ = 0;
  int64_t index_ = -1;
  Value previous_ = Value();
  Value current_ = Value();
  std::optional<std::string> last_changed_;  // What loop.changed was last asked about, as shown.
};

}  // namespace nibble::jinja
