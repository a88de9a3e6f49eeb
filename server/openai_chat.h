// The messages of a chat as a chat template sees them.

#pragma once

#include "absl/status/statusor.h"
#include "server/engine/chat/chat_template.h"

namespace nibble {

// `messages` as clients send them: content is a string or text parts, which are joined by a line
// break; the arguments of an assistant's calls are JSON in a string, and become what they say, as
// templates expect it; content that is null becomes an empty string.
//
// Errors: INVALID_ARGUMENT that names the field ("messages[2].role").
absl::StatusOr<TemplateJson> ReadMessages(const TemplateJson& messages);

}  // namespace nibble
