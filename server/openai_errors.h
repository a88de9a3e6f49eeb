// Errors as OpenAI's clients read them.

#pragma once

#include "absl/status/status.h"
#include "server/engine/chat/chat_template.h"
#include "server/http_routes.h"

namespace nibble {

// {"error": {message, type, param, code}}. `param` is the field that was wrong, `code` the reason
// in lower case.
//
// Requires: !status.ok().
TemplateJson OpenAiErrorJson(const absl::Status& status);

// The same with the HTTP status that the code means; 429 and 503 say when to come again.
HttpAnswer OpenAiError(const absl::Status& status);

}  // namespace nibble
