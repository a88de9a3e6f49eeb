#include "server/engine/chat/loop.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/python_text.h"

namespace nibble::jinja {
namespace {

constexpr absl::string_view kEnd = "there is no ";

// Only what a loop gave out is bound to these.
LoopObject& LoopOf(const Value& receiver) { return static_cast<LoopObject&>(*receiver.object()); }

Value Cycle(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  const auto count = static_cast<int64_t>(arguments.positional.size());
  if (count == 0 || !arguments.named.empty()) {
    interpreter.run().Fail("loop.cycle has nothing to cycle through");
    return Value();
  }
  const int64_t index = std::max<int64_t>(LoopOf(receiver).index(), 0);
  return arguments.positional[static_cast<size_t>(index % count)];
}

Value Changed(Interpreter& interpreter, const Value& receiver, const Arguments& arguments) {
  Run& run = interpreter.run();
  return Value(LoopOf(receiver).HasChanged(
      ToRepr(run, MakeSequence(&run, Flavor::kTuple, arguments.positional))));
}

}  // namespace

LoopObject::LoopObject(Interpreter& interpreter, const ForStatement& loop,
                       const std::shared_ptr<Scope>& scope, const Value& items, int64_t level)
    : Object(&interpreter.run(), items.Depth() + 1),
      loop_(loop),
      scope_(scope),
      items_(interpreter.run(), items),
      level_(level) {}

std::optional<Value> LoopObject::TakeAdmitted(Interpreter& interpreter) {
  if (admitted_.has_value()) {
    return admitted_next_ < admitted_->size() ? std::optional((*admitted_)[admitted_next_++])
                                              : std::nullopt;
  }
  const std::shared_ptr<Scope> scope = scope_.lock();
  if (scope == nullptr) {
    return std::nullopt;
  }
  while (next_ < items_.size() && interpreter.run().Step()) {
    const Value& item = items_[next_++];
    if (interpreter.LoopAdmits(loop_, scope, item)) {
      return item;
    }
  }
  return std::nullopt;
}

const std::optional<Value>& LoopObject::Peek(Interpreter& interpreter) {
  if (!looked_ahead_) {
    ahead_ = TakeAdmitted(interpreter);
    looked_ahead_ = true;
  }
  return ahead_;
}

bool LoopObject::Advance(Interpreter& interpreter) {
  const bool goes_on = Peek(interpreter).has_value();
  looked_ahead_ = false;
  if (!goes_on) {
    return false;
  }
  ++index_;
  previous_ = std::move(current_);
  current_ = *std::move(ahead_);
  ahead_.reset();
  return true;
}

int64_t LoopObject::Length(Interpreter& interpreter) {
  if (loop_.condition == nullptr) {
    return static_cast<int64_t>(items_.size());
  }
  if (!admitted_.has_value()) {
    std::vector<Value> rest;
    while (std::optional<Value> item = TakeAdmitted(interpreter)) {
      rest.push_back(*std::move(item));
    }
    Run& run = interpreter.run();
    admitted_.emplace(run, MakeSequence(&run, Flavor::kList, std::move(rest)));
    length_ = static_cast<size_t>(index_ + 1) + (looked_ahead_ && ahead_.has_value() ? 1 : 0) +
              admitted_->size();
  }
  return static_cast<int64_t>(*length_);
}

std::string LoopObject::Shown() const {
  return absl::StrCat("<LoopContext ", index_ + 1, "/",
                      loop_.condition == nullptr ? items_.size() : length_.value_or(0), ">");
}

Value LoopObject::Call(Interpreter& interpreter, const Arguments& arguments) {
  BoundArguments bound(interpreter.run(), "loop", arguments, {"iterable"}, 1);
  const std::shared_ptr<Scope> scope = scope_.lock();
  if (!loop_.is_recursive || scope == nullptr) {
    interpreter.run().Fail("a loop is called that is not recursive");
    return Value();
  }
  return interpreter.CallLoop(loop_, scope, bound.Any(0), level_ + 1);
}

Value LoopObject::GetAttribute(Interpreter& interpreter, absl::string_view name) {
  Run& run = interpreter.run();
  if (name == "index") return Value(index_ + 1);
  if (name == "index0") return Value(index_);
  if (name == "first") return Value(index_ == 0);
  if (name == "last") return Value(!Peek(interpreter).has_value());
  if (name == "length") return Value(Length(interpreter));
  if (name == "revindex") return Value(Length(interpreter) - index_);
  if (name == "revindex0") return Value(Length(interpreter) - index_ - 1);
  if (name == "depth") return Value(level_ + 1);
  if (name == "depth0") return Value(level_);
  if (name == "previtem") {
    return index_ > 0 ? previous_
                      : Value::UndefinedBecause(run, absl::StrCat(kEnd, "previous item"));
  }
  if (name == "nextitem") {
    const std::optional<Value>& next = Peek(interpreter);
    return next.has_value() ? *next : Value::UndefinedBecause(run, absl::StrCat(kEnd, "next item"));
  }
  return Value();
}

MethodFunction LoopObject::FindMethod(absl::string_view name) const {
  return name == "cycle" ? &Cycle : (name == "changed" ? &Changed : nullptr);
}

bool LoopObject::HasChanged(std::string shown) {
  const bool changed = last_changed_ != shown;
  last_changed_ = std::move(shown);
  return changed;
}

}  // namespace nibble::jinja
