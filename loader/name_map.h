// Tables by names that anybody may have written. Not absl's hash tables: these are left in pieces,
// and crash on destruction, when the allocation for a larger one throws (20220623), and here a file
// decides how large they grow. Absl's hash, because its seed is not known outside this process:
// nobody can write names that all fall into one bucket.

#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace nibble {

template <typename Value>
using NameMap = std::unordered_map<std::string, Value, absl::Hash<std::string>>;

using NameSet = std::unordered_set<std::string, absl::Hash<std::string>>;

// Of names that outlive them.
template <typename Value>
using NameViewMap = std::unordered_map<absl::string_view, Value, absl::Hash<absl::string_view>>;

using NameViewSet = std::unordered_set<absl::string_view, absl::Hash<absl::string_view>>;

}  // namespace nibble
