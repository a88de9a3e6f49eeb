// What an answer must look like, as a client asks for it.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/engine/generation.h"
#include "server/engine/text/answer_format.h"
#include "server/engine/text/model_text.h"

namespace nibble {

// Makes the constraint of one answer.
using ConstraintMaker = std::function<absl::StatusOr<std::unique_ptr<TokenConstraint>>()>;

// Answers that are JSON objects, or values of a JSON schema, if one is given. Where `format` begins
// in reasoning that comes first, and is free.
//
// Errors: those of CompileJsonSchema and ModelText::Vocabulary.
absl::StatusOr<ConstraintMaker> MakeJsonFormat(const std::optional<std::string>& schema,
                                               const AnswerFormat& format, const ModelText& text,
                                               int64_t vocabulary_size);

// Answers that are one call of a tool, whose arguments satisfy its parameters; reasoning as above.
// `tools` are in OpenAI's form.
//
// Errors: UNIMPLEMENTED for forms of calls that we do not write; those of CompileJsonSchema, after
//   the tool's name, and of ModelText::Vocabulary.
absl::StatusOr<ConstraintMaker> MakeCallFormat(const TemplateJson& tools,
                                               const AnswerFormat& format, const ModelText& text,
                                               int64_t vocabulary_size);

}  // namespace nibble
