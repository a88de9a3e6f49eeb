// What an answer must look like, as a client asks for it.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/engine/generation.h"
#include "server/engine/text/model_text.h"

namespace nibble {

// Makes the constraint of one answer.
using ConstraintMaker = std::function<absl::StatusOr<std::unique_ptr<TokenConstraint>>()>;

// Answers that are JSON objects, or values of a JSON schema, if one is given.
//
// Errors: those of CompileJsonSchema and ModelText::Vocabulary.
absl::StatusOr<ConstraintMaker> MakeJsonFormat(const std::optional<std::string>& schema,
                                               const ModelText& text, int64_t vocabulary_size);

}  // namespace nibble
