// Takes the members of a JSON object one by one, and knows at the end which were left over.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/chat_template.h"

namespace nibble {

// The first error sticks and every later call returns nothing, so a caller may take all its fields
// and look at Finish() once. A member that is null counts as absent, as OpenAI's clients mean it.
// Names are those of string constants, which are kept by reference.
class RequestFields {
 public:
  // `object` must outlive this. `prefix` comes before names in errors: "messages[0].".
  explicit RequestFields(const TemplateJson& object, std::string prefix = "");

  const TemplateJson* Take(absl::string_view name);
  std::optional<std::string> TakeString(absl::string_view name);
  std::optional<bool> TakeBool(absl::string_view name);
  std::optional<float> TakeFloat(absl::string_view name);
  std::optional<int64_t> TakeInteger(absl::string_view name, int64_t least, int64_t most);
  const TemplateJson* TakeObject(absl::string_view name);
  const TemplateJson* TakeArray(absl::string_view name);

  // Says what is wrong with a field, if nothing was wrong before.
  void Refuse(absl::string_view name, absl::string_view message);

  // What another reader said of a part.
  void Update(const absl::Status& status) { status_.Update(status); }

  const absl::Status& status() const { return status_; }

  // Errors: INVALID_ARGUMENT with the field's name: the first of what was wrong, or a field that
  //   nobody took: what is not honoured is not ignored.
  absl::Status Finish();

 private:
  std::string NameOf(absl::string_view name) const;

  const TemplateJson& object_;
  const std::string prefix_;
  std::vector<absl::string_view> known_;
  absl::Status status_;
};

}  // namespace nibble
