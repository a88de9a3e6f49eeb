#include "server/openai_models.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "loader/printable.h"

namespace nibble {
namespace {

TemplateJson ModelJson(const ModelInfo& model, absl::Time created) {
  TemplateJson json = TemplateJson::object();
  json["id"] = model.name;
  json["object"] = "model";
  json["created"] = absl::ToUnixSeconds(created);
  json["owned_by"] = "nibble";
  return json;
}

}  // namespace

TemplateJson ListOpenAiModels(const StateSnapshot& snapshot, absl::Time created) {
  TemplateJson json = TemplateJson::object();
  json["object"] = "list";
  json["data"] = TemplateJson::array();
  for (const ModelInfo& model : snapshot.models) {
    if (model.state == ModelState::kReady) {
      json["data"].push_back(ModelJson(model, created));
    }
  }
  return json;
}

absl::StatusOr<TemplateJson> FindOpenAiModel(const StateSnapshot& snapshot, absl::string_view name,
                                             absl::Time created) {
  for (const ModelInfo& model : snapshot.models) {
    if (model.name == name && model.state == ModelState::kReady) {
      return ModelJson(model, created);
    }
  }
  return OpenAiModelNotFound(absl::StrCat("no model ", Printable(name), " is ready"));
}

absl::Status OpenAiModelNotFound(absl::string_view message) {
  ErrorDetails details;
  details.reason = "MODEL_NOT_FOUND";
  details.field = "model";
  return WithDetails(absl::NotFoundError(message), details);
}

absl::StatusOr<std::string> DecodePath(absl::string_view path) {
  std::string text;
  while (!path.empty()) {
    if (path.front() != '%') {
      text += path.front();
      path.remove_prefix(1);
    } else if (path.size() >= 3 && absl::ascii_isxdigit(static_cast<unsigned char>(path[1])) &&
               absl::ascii_isxdigit(static_cast<unsigned char>(path[2]))) {
      text += absl::HexStringToBytes(path.substr(1, 2));
      path.remove_prefix(3);
    } else {
      return absl::InvalidArgumentError("the path: expected two hexadecimal digits after %");
    }
  }
  return text;
}

}  // namespace nibble
