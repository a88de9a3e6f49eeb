// A model's chat template: from messages to the prompt that the model was trained on.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Keeps the order of members: templates print dicts, and models know them in that order.
using TemplateJson = nlohmann::ordered_json;

struct RenderOptions {
  // What `strftime_now` shows.
  absl::Time now = absl::Now();
  absl::TimeZone zone = absl::LocalTimeZone();
};

// One template in the subset of Jinja that Hugging Face's templates are written in, with the
// settings and functions that transformers gives it.
//
// Immutable once parsed. Thread-safe. Copies share the parsed template.
class ChatTemplate {
 public:
  // Errors: INVALID_ARGUMENT with the line, if it is not of the language or too long;
  //   RESOURCE_EXHAUSTED if it is nested too deep.
  // Cost: some 100 bytes of memory a byte of the template while it is parsed.
  static absl::StatusOr<ChatTemplate> Parse(absl::string_view source);

  // The prompt. `variables` is an object: `messages`, `tools` (null or absent without any),
  // `add_generation_prompt`, the special tokens, and whatever else the template is to see. As in
  // transformers, a variable that is null is defined, and none.
  //
  // Errors: INVALID_ARGUMENT with the line, or with what the template itself says by
  //   raise_exception and nothing else; RESOURCE_EXHAUSTED at one of the limits in limits.h.
  // Cost: at most half a second and some 100 MB, whatever the template does.
  absl::StatusOr<std::string> Render(const TemplateJson& variables,
                                     const RenderOptions& options = {}) const;

  // What was parsed.
  const std::string& source() const;

 private:
  struct Tree;
  explicit ChatTemplate(std::shared_ptr<const Tree> tree) : tree_(std::move(tree)) {}

  std::shared_ptr<const Tree> tree_;
};

}  // namespace nibble
