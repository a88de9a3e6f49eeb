// Attributes, items, calls: the part of Interpreter that filters use too.

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/chat/comparison.h"
#include "server/engine/chat/filters.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/method.h"
#include "server/engine/chat/python_text.h"
#include "server/engine/chat/unicode_text.h"
#include "server/engine/chat/value_tests.h"

namespace nibble::jinja {
namespace {

Value NoSuchAttribute(Run& run, const Value& object, absl::string_view name) {
  return Value::UndefinedBecause(
      run, object.is_none() ? absl::StrCat("'None' has no attribute ", Printable(name))
                            : absl::StrCat("'", object.TypeName(), " object' has no attribute ",
                                           Printable(name)));
}

// Methods and what else is found behind a dot; undefined without a reason if there is nothing.
Value FindAttribute(Interpreter& interpreter, const Value& object, absl::string_view name) {
  Run& run = interpreter.run();
  if (absl::StartsWith(name, "_") || IsChangingMethod(object, name)) {
    return Value::UndefinedBecause(
        run, absl::StrCat("access to attribute ", Printable(name), " of '", object.TypeName(),
                          "' object is unsafe"));
  }
  if (const MethodFunction method = FindMethod(object, name); method != nullptr) {
    return BindMethod(run, object, name, method);
  }
  if (object.attributes() != nullptr) {
    run.StepLookups(object.attributes()->attributes.size());
    for (const auto& [known, value] : object.attributes()->attributes) {
      if (known == name) {
        return value;
      }
    }
  }
  if (object.Is(Flavor::kGroup) && (name == "grouper" || name == "list")) {
    return object.sequence()->items[name == "list" ? 1 : 0];
  }
  return object.object() == nullptr ? Value() : object.object()->GetAttribute(interpreter, name);
}

bool WasFound(const Value& value) { return !value.is_undefined() || value.has_reason(); }

// An item by number; undefined without a reason if there is none.
Value FindByNumber(Run& run, const Value& object, int64_t index) {
  const bool is_text = object.text() != nullptr;
  const auto size =
      is_text ? object.text()->code_points : static_cast<int64_t>(object.sequence()->items.size());
  index = index < 0 ? index + size : index;
  if (index < 0 || index >= size) {
    return Value();
  }
  if (!is_text) {
    return object.sequence()->items[static_cast<size_t>(index)];
  }
  const std::string& bytes = object.text()->bytes;
  if (object.text()->is_ascii()) {
    return MakeText(&run, bytes.substr(static_cast<size_t>(index), 1));
  }
  run.StepLookups(bytes.size());
  size_t end = ByteAt(bytes, index);
  const size_t begin = end;
  NextCodePoint(bytes, end);
  return MakeText(&run, bytes.substr(begin, end - begin));
}

bool HasNumbers(const Value& object) {
  return object.text() != nullptr || object.Is(Flavor::kList) || object.Is(Flavor::kTuple) ||
         object.Is(Flavor::kGroup) || object.Is(Flavor::kRange);
}

}  // namespace

Value Interpreter::GetAttribute(const Value& object, absl::string_view name) {
  if (object.is_undefined()) {
    run_.Fail(object.reason());
    return Value();
  }
  Value found = FindAttribute(*this, object, name);
  if (WasFound(found) || run_.failed()) {
    return found;
  }
  if (object.map() != nullptr) {
    const Value* item = FindInMap(run_, *object.map(), name);
    if (item != nullptr) {
      return *item;
    }
  }
  return NoSuchAttribute(run_, object, name);
}

Value Interpreter::GetItem(const Value& object, const Value& index) {
  if (object.is_undefined()) {
    run_.Fail(object.reason());
    return Value();
  }
  if (object.map() != nullptr && IsHashable(run_, index)) {
    const Value* item = FindInMap(run_, *object.map(), index);
    if (item != nullptr) {
      return *item;
    }
  }
  Value found;
  if (HasNumbers(object) && index.is_integer()) {
    found = LikeIts(run_, object, FindByNumber(run_, object, index.integer()));
  } else if (index.text() != nullptr) {
    found = FindAttribute(*this, object, index.text()->bytes);
  }
  return WasFound(found) || run_.failed() ? found
                                          : NoSuchAttribute(run_, object, ToText(run_, index));
}

Value Interpreter::CallValue(const Value& callee, const Arguments& arguments) {
  const DepthGuard guard(run_, depth_);
  if (!run_.Step()) {
    return Value();
  }
  if (callee.object() == nullptr || !callee.object()->is_callable()) {
    run_.Fail(callee.is_undefined()
                  ? std::string(callee.reason())
                  : absl::StrCat("a '", callee.TypeName(), "' is called and cannot be"));
    return Value();
  }
  const Value kept = callee;  // A loop may let go of itself while it runs.
  return kept.object()->Call(*this, arguments);
}

Value Interpreter::ApplyFilter(absl::string_view name, const Value& input,
                               const Arguments& arguments) {
  const DepthGuard guard(run_, depth_);
  if (!run_.Step()) {
    return Value();
  }
  const FilterFunction filter = FindFilter(name);
  if (filter == nullptr) {
    run_.Fail(absl::StrCat("no filter is named ", Printable(name)));
    return Value();
  }
  return filter(*this, input, arguments);
}

bool Interpreter::ApplyTest(absl::string_view name, const Value& input,
                            const Arguments& arguments) {
  if (!run_.Step()) {
    return false;
  }
  const TestFunction test = FindTest(name);
  if (test == nullptr) {
    run_.Fail(absl::StrCat("no test is named ", Printable(name)));
    return false;
  }
  return test(*this, input, arguments);
}

}  // namespace nibble::jinja
