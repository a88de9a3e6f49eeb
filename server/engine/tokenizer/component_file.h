// What normalizers, pre-tokenizers, post-processors and decoders have in common in tokenizer.json:
// objects with a "type", null where there is none, and sequences of each other.

#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/json_tree.h"
#include "server/engine/tokenizer/text_pattern.h"

namespace nibble {

// Calls `parse` for each component that `tree` holds, in order, sequences unfolded; for none if it
// is null. `members` is the name that a Sequence gives to its list ("normalizers").
//
// Errors: DATA_LOSS for what has no type, RESOURCE_EXHAUSTED above kComponentsMax, and what `parse`
//   answers, with the component's type.
absl::Status ForEachComponent(
    const JsonTree& tree, absl::string_view members,
    absl::FunctionRef<absl::Status(absl::string_view type, const JsonTree& component)> parse);

// UNIMPLEMENTED, for a component of a type that we do not have.
absl::Status UnknownComponent();

// The member "pattern": {"String": ..} or {"Regex": ..}.
absl::StatusOr<TextPattern> PatternMember(const JsonTree& component);

// The member `name`, one character.
absl::StatusOr<std::string> CharacterMember(const JsonTree& component, absl::string_view name);

// The member "behavior". Where a default is given, the member may be missing.
absl::StatusOr<SplitBehavior> BehaviorMember(const JsonTree& component);
absl::StatusOr<SplitBehavior> BehaviorMember(const JsonTree& component, SplitBehavior fallback);

}  // namespace nibble
