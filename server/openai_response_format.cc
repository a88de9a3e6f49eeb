#include "server/openai_response_format.h"

#include <utility>

#include "kernels/error_details.h"
#include "server/engine/text/response_format.h"
#include "server/request_fields.h"

namespace nibble {
namespace {

// The schema of a "json_schema" format, as text: its members' order counts.
absl::StatusOr<std::string> TakeSchema(RequestFields& format) {
  const TemplateJson* const outer = format.TakeObject("json_schema");
  if (outer == nullptr) {
    return BadField("response_format.json_schema", "expected an object with a schema");
  }
  RequestFields fields(*outer, "response_format.json_schema.");
  fields.TakeString("name");
  fields.TakeString("description");
  fields.TakeBool("strict");  // An answer always follows its schema.
  const TemplateJson* const schema = fields.Take("schema");
  if (absl::Status status = fields.Finish(); !status.ok()) {
    return status;
  }
  if (schema == nullptr) {
    return BadField("response_format.json_schema.schema", "expected a JSON schema, found none");
  }
  return schema->dump(-1, ' ', false, TemplateJson::error_handler_t::replace);
}

// What a schema asks for and we do not honour is the request's mistake: that of `field`.
absl::Status MistakeOf(const char* field, const absl::Status& status) {
  return absl::IsUnimplemented(status) || absl::IsInvalidArgument(status)
             ? BadField(field, status.message())
             : status;
}

}  // namespace

absl::StatusOr<ResponseFormat> ReadResponseFormat(const TemplateJson& json) {
  RequestFields fields(json, "response_format.");
  const std::string type = fields.TakeString("type").value_or("");
  ResponseFormat format;
  format.is_json = type != "text";
  if (type == "json_schema") {
    absl::StatusOr<std::string> given = TakeSchema(fields);
    if (!given.ok()) {
      return given.status();
    }
    format.schema = *std::move(given);
  } else if (type != "text" && type != "json_object") {
    return BadField("response_format.type", "expected text, json_object or json_schema");
  }
  if (absl::Status status = fields.Finish(); !status.ok()) {
    return status;
  }
  return format;
}

absl::Status Constrain(const ResponseFormat& format, const ToolChoice& choice,
                       const ModelText& text, int64_t vocabulary_size, TextRequest& request) {
  const bool is_call = !choice.required.is_null();
  if (!is_call && !format.is_json) {
    return absl::OkStatus();
  }
  absl::StatusOr<ConstraintMaker> maker =
      is_call ? MakeCallFormat(choice.required, *request.format, text, vocabulary_size)
              : MakeJsonFormat(format.schema, *request.format, text, vocabulary_size);
  if (!maker.ok()) {
    return MistakeOf(is_call ? "tool_choice" : "response_format.json_schema.schema",
                     maker.status());
  }
  request.make_constraint = *std::move(maker);
  return absl::OkStatus();
}

}  // namespace nibble
