#include "server/engine/text/model_text.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/error_details.h"
#include "loader/nested_directory.h"
#include "server/engine/recipe_reader.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// Far beyond any; tokenizer.json has a limit of its own.
constexpr int64_t kTokenizerBytesMax = int64_t{64} << 20;
constexpr int64_t kSmallFileBytesMax = int64_t{4} << 20;
constexpr int64_t kAdditionalTemplatesMax = 16;  // Released models have two or three.

// The small files of a checkpoint. What its files say wrong is told when it is used; a file that is
// there and cannot be read is a failure of its own.
class SmallFiles {
 public:
  explicit SmallFiles(const CheckpointDirectory& directory) : directory_(directory) {}

  // Errors: those of opening; RESOURCE_EXHAUSTED if it is longer than that.
  absl::StatusOr<std::string> Read(absl::string_view file_name, int64_t bytes_max) {
    return ReadIn(directory_, file_name, bytes_max);
  }

  // The same of another directory.
  absl::StatusOr<std::string> ReadIn(const CheckpointDirectory& directory,
                                     absl::string_view file_name, int64_t bytes_max) {
    absl::StatusOr<std::string> text = ReadWhole(directory, file_name, bytes_max);
    if (absl::IsInternal(text.status()) || absl::IsDataLoss(text.status())) {
      failure_.Update(text.status());
    }
    return text;
  }

  // The first file that could not be read.
  const absl::Status& failure() const { return failure_; }

 private:
  static absl::StatusOr<std::string> ReadWhole(const CheckpointDirectory& directory,
                                               absl::string_view file_name, int64_t bytes_max) {
    const absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = directory.Open(file_name);
    if (!file.ok()) {
      return file.status();
    }
    const absl::StatusOr<FileIdentity> identity = (*file)->Identify();
    if (!identity.ok()) {
      return identity.status();
    }
    if (identity->bytes > bytes_max) {
      return absl::ResourceExhaustedError(absl::StrCat(file_name, ": expected at most ", bytes_max,
                                                       " bytes, found ", identity->bytes));
    }
    std::string text(static_cast<size_t>(identity->bytes), '\0');
    if (absl::Status status = (*file)->Read(0, std::as_writable_bytes(std::span(text)));
        !status.ok()) {
      return status;
    }
    return text;
  }

  const CheckpointDirectory& directory_;
  absl::Status failure_;
};

// An object, or an empty one where the file is missing or no JSON: these files only add to others.
Json ReadObject(SmallFiles& files, absl::string_view file_name) {
  const absl::StatusOr<std::string> text = files.Read(file_name, kSmallFileBytesMax);
  Json json = text.ok() ? Json::parse(*text, nullptr, false) : Json::object();
  return json.is_object() ? json : Json::object();
}

// eos_token_id: a number or an array of them.
std::vector<int32_t> StopTokens(const Json& config) {
  std::vector<int32_t> ids;
  const auto found = config.find("eos_token_id");
  if (found == config.end()) {
    return ids;
  }
  const auto add = [&ids](const Json& id) {
    if (id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX) {
      ids.push_back(id.get<int32_t>());
    }
  };
  if (found->is_array()) {
    std::for_each(found->begin(), found->end(), add);
  } else {
    add(*found);
  }
  return ids;
}

GenerationDefaults ReadDefaults(SmallFiles& files, absl::string_view config_json) {
  GenerationDefaults defaults;
  const Json generation = ReadObject(files, "generation_config.json");
  RecipeReader reader(generation, "generation_config.json: ");
  SamplingOptions& sampling = defaults.sampling;
  const auto number = [&reader](absl::string_view key, float otherwise) {
    return static_cast<float>(reader.Number(key, double{otherwise}));
  };
  sampling.temperature = number("temperature", 1);
  sampling.top_k = reader.Integer("top_k", 0);
  sampling.top_p = number("top_p", 1);
  sampling.min_p = number("min_p", 0);
  sampling.repetition_penalty = number("repetition_penalty", 1);
  if (!reader.Boolean("do_sample", true)) {
    sampling.temperature = 0;
  }
  // Nonsense in the file must not make every request fail.
  if (!Validate(sampling, 1).ok()) {
    sampling = SamplingOptions();
  }
  defaults.stop_token_ids = StopTokens(generation);
  if (defaults.stop_token_ids.empty()) {
    const Json config = Json::parse(config_json.begin(), config_json.end(), nullptr, false);
    if (config.is_object()) {
      const auto nested = config.find("text_config");
      defaults.stop_token_ids = StopTokens(config);
      if (defaults.stop_token_ids.empty() && nested != config.end() && nested->is_object()) {
        defaults.stop_token_ids = StopTokens(*nested);
      }
    }
  }
  return defaults;
}

// A file's bytes; empty where it is missing.
absl::StatusOr<std::string> ReadIfThere(SmallFiles& files, absl::string_view file_name) {
  absl::StatusOr<std::string> text = files.Read(file_name, kSmallFileBytesMax);
  return absl::IsNotFound(text.status()) ? "" : text;
}

// The files NAME.jinja of additional_chat_templates/, in which newer transformers keeps all but the
// first template: names and bytes. None where there is no such directory.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadAdditionalTemplates(
    const CheckpointDirectory& checkpoint, SmallFiles& files) {
  constexpr absl::string_view kEnding = ".jinja";
  std::vector<std::pair<std::string, std::string>> templates;
  const auto directory = OpenNestedDirectory(checkpoint, "additional_chat_templates");
  if (!directory.ok()) {
    return absl::IsNotFound(directory.status())
               ? absl::StatusOr<std::vector<std::pair<std::string, std::string>>>(templates)
               : directory.status();
  }
  const absl::StatusOr<std::vector<std::string>> names = (*directory)->List();
  if (!names.ok()) {
    return names.status();
  }
  for (absl::string_view name : *names) {
    const std::string file_name(name);
    if (!absl::ConsumeSuffix(&name, kEnding) || name.empty()) {
      continue;
    }
    if (std::ssize(templates) == kAdditionalTemplatesMax) {
      return absl::ResourceExhaustedError(absl::StrCat("additional_chat_templates: has more than ",
                                                       kAdditionalTemplatesMax, " templates"));
    }
    absl::StatusOr<std::string> source = files.ReadIn(**directory, file_name, kSmallFileBytesMax);
    if (!source.ok()) {
      return source.status();
    }
    templates.emplace_back(name, *std::move(source));
  }
  return templates;
}

absl::StatusOr<TemplateSet> ReadTemplates(const CheckpointDirectory& directory, SmallFiles& files) {
  const absl::StatusOr<std::string> config = ReadIfThere(files, "tokenizer_config.json");
  const absl::StatusOr<std::string> file = ReadIfThere(files, "chat_template.jinja");
  if (!config.ok() || !file.ok()) {
    return config.ok() ? file.status() : config.status();
  }
  const absl::StatusOr<std::vector<std::pair<std::string, std::string>>> additional =
      ReadAdditionalTemplates(directory, files);
  if (!additional.ok()) {
    return additional.status();
  }
  TemplateFiles sources = {.tokenizer_config = *config, .chat_template = *file};
  for (const auto& [name, source] : *additional) {
    sources.additional.emplace_back(name, source);
  }
  return TemplateSet::Parse(sources);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ModelText>> ModelText::Load(
    const CheckpointDirectory& directory, absl::string_view config_json) {
  auto model = std::shared_ptr<ModelText>(new ModelText());
  SmallFiles files(directory);
  const absl::StatusOr<std::string> file = files.Read("tokenizer.json", kTokenizerBytesMax);
  if (file.ok()) {
    model->tokenizer_ = ParseTokenizer("tokenizer.json", *file);
  } else if (absl::IsNotFound(file.status())) {
    model->tokenizer_ = absl::FailedPreconditionError(
        "the model has no tokenizer.json: it takes and gives token ids alone");
  } else {
    model->tokenizer_ = file.status();
  }
  model->templates_ = ReadTemplates(directory, files);
  model->defaults_ = ReadDefaults(files, config_json);
  if (!files.failure().ok()) {
    return files.failure();
  }
  return model;
}

absl::StatusOr<const Tokenizer*> ModelText::tokenizer() const {
  return tokenizer_.ok() ? absl::StatusOr<const Tokenizer*>(tokenizer_->get())
                         : absl::StatusOr<const Tokenizer*>(tokenizer_.status());
}

absl::StatusOr<std::vector<int32_t>> ModelText::Encode(absl::string_view text,
                                                       const EncodeOptions& options) const {
  if (!tokenizer_.ok()) {
    return tokenizer_.status();
  }
  const absl::StatusOr<std::vector<uint32_t>> ids = (*tokenizer_)->Encode(text, options);
  if (!ids.ok()) {
    return ids.status();
  }
  return std::vector<int32_t>(ids->begin(), ids->end());
}

absl::StatusOr<RenderedPrompt> ModelText::Render(TemplateJson variables) const {
  if (!templates_.ok()) {
    return templates_.status();
  }
  const auto tools = variables.find("tools");
  const bool has_tools = tools != variables.end() && tools->is_array() && !tools->empty();
  const ChatTemplate* const chat_template = templates_->Find(has_tools);
  if (chat_template == nullptr) {
    return absl::FailedPreconditionError(
        "the model has no chat template: it takes a prompt, not messages");
  }
  // A template that never speaks of them would leave them out without a word.
  if (has_tools && !absl::StrContains(chat_template->source(), "tool")) {
    return BadField("tools", "the model's chat template has no place for tools");
  }
  for (const auto& [name, token] : templates_->special_tokens().items()) {
    if (!variables.contains(name)) {
      variables[name] = token;
    }
  }
  absl::StatusOr<std::string> prompt = chat_template->Render(variables);
  if (!prompt.ok()) {
    return prompt.status();
  }
  AnswerFormat format = FindAnswerFormat(chat_template->source(), *prompt,
                                         has_tools ? variables["tools"] : TemplateJson());
  return RenderedPrompt{*std::move(prompt), std::move(format)};
}

absl::StatusOr<std::shared_ptr<const TokenVocabulary>> ModelText::Vocabulary(
    int64_t vocabulary_size) const {
  if (!tokenizer_.ok()) {
    return tokenizer_.status();
  }
  std::vector<int32_t> end_ids;
  for (const int32_t id : defaults_.stop_token_ids) {
    if (id < vocabulary_size) {
      end_ids.push_back(id);
    }
  }
  if (end_ids.empty()) {
    return absl::FailedPreconditionError(
        "constrained sampling: the model names no token that ends an answer");
  }
  MutexLock lock(mutex_);
  if (vocabulary_ == nullptr) {
    std::vector<std::string> bytes(static_cast<size_t>(vocabulary_size));
    for (size_t id = 0; id < bytes.size(); ++id) {
      const auto token = static_cast<uint32_t>(id);
      if (!(*tokenizer_)->IsSpecial(token)) {
        bytes[id] = (*tokenizer_)->TokenBytes(token).value_or("");
      }
    }
    vocabulary_ = std::make_shared<const TokenVocabulary>(std::move(bytes), std::move(end_ids));
  }
  return vocabulary_;
}

}  // namespace nibble
