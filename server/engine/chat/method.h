// The methods of strings, lists and dicts, of what Python has those that do not change them.

#pragma once

#include "absl/strings/string_view.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

// The method of this name that `value` has; null if it has none.
MethodFunction FindMethod(const Value& value, absl::string_view name);

// Whether Python has a method of this name that would change `value`: list.append, dict.update.
// Jinja's sandbox refuses them.
bool IsChangingMethod(const Value& value, absl::string_view name);

// Those of strings: string_methods.cc, string_search_methods.cc.
MethodFunction FindTextMethod(absl::string_view name);
MethodFunction FindTextSearchMethod(absl::string_view name);

// receiver.name as a value.
Value BindMethod(Run& run, const Value& receiver, absl::string_view name, MethodFunction function);

}  // namespace nibble::jinja
