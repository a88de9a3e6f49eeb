// The models that answer, as OpenAI's API lists them.

#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/engine/chat/chat_template.h"
#include "server/model_registry.h"

namespace nibble {

// {"object": "list", "data": [...]}: those that are READY. `created` stands for each: when a model
// was made nobody knows, and the field must be there.
TemplateJson ListOpenAiModels(const StateSnapshot& snapshot, absl::Time created);

// Errors: NOT_FOUND with the reason MODEL_NOT_FOUND, also for one that is not READY.
absl::StatusOr<TemplateJson> FindOpenAiModel(const StateSnapshot& snapshot, absl::string_view name,
                                             absl::Time created);

// The error for a model that is not there.
absl::Status OpenAiModelNotFound(absl::string_view message);

// The text that a path's percent codes say.
//
// Errors: INVALID_ARGUMENT for a code that is none.
absl::StatusOr<std::string> DecodePath(absl::string_view path);

}  // namespace nibble
