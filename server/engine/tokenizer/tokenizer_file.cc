// tokenizer.json as a whole: its members, and what is made of them.

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "loader/json_reader.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/json_tree.h"
#include "server/engine/tokenizer/tokenizer.h"
#include "server/engine/tokenizer/tokenizer_limits.h"

namespace nibble {
namespace {

struct TokenizerFile {
  JsonTree added_tokens;
  JsonTree normalizer;
  JsonTree pre_tokenizer;
  JsonTree post_processor;
  JsonTree decoder;
  absl::string_view model;
};

absl::Status Within(absl::string_view name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(name, ": ", status.message()));
}

absl::StatusOr<TokenizerFile> ReadMembers(absl::string_view json) {
  TokenizerFile file;
  JsonTree version;
  const std::pair<absl::string_view, JsonTree*> trees[] = {
      {"version", &version},
      {"added_tokens", &file.added_tokens},
      {"normalizer", &file.normalizer},
      {"pre_tokenizer", &file.pre_tokenizer},
      {"post_processor", &file.post_processor},
      {"decoder", &file.decoder},
  };
  JsonReader reader(json, {.depth_max = kTokenizerFileDepthMax});
  absl::flat_hash_set<std::string> keys;
  std::string key;
  reader.EnterObject();
  while (reader.NextMember(key)) {
    if (!keys.insert(key).second) {
      reader.Refuse(absl::StrCat("the member ", Printable(key), " stands twice"));
      break;
    }
    JsonTree* tree = nullptr;
    for (const auto& [name, target] : trees) {
      tree = name == key ? target : tree;
    }
    if (tree != nullptr) {
      ReadJsonTree(reader, *tree);
    } else if (key == "model") {
      reader.ReadText(file.model);
    } else if (key == "truncation" || key == "padding") {
      reader.SkipValue();
    } else {
      return absl::UnimplementedError(absl::StrCat("the member ", Printable(key)));
    }
  }
  reader.Finish();
  if (!reader.status().ok()) {
    return reader.status();
  }
  if (!version.is_null() && version.string != "1.0") {
    return absl::UnimplementedError(
        absl::StrCat("version: expected \"1.0\", found ", Printable(version.string)));
  }
  if (file.model.empty()) {
    return absl::DataLossError("expected a model");
  }
  return file;
}

struct Parts {
  std::optional<BpeModel> model;
  std::optional<AddedTokens> added;
  std::optional<Normalizer> normalizer;
  std::optional<PreTokenizer> pre_tokenizer;
  std::optional<PostProcessor> post_processor;
  std::optional<Decoder> decoder;
};

// Moves `made` to `part`, or says in which member it failed.
template <typename Part>
absl::Status Take(absl::string_view name, absl::StatusOr<Part> made, std::optional<Part>& part) {
  if (!made.ok()) {
    return Within(name, made.status());
  }
  part.emplace(*std::move(made));
  return absl::OkStatus();
}

absl::StatusOr<BpeModel> MakeModel(absl::string_view json) {
  auto file = ParseBpeFile(json);
  return file.ok() ? BpeModel::Create(*std::move(file)) : file.status();
}

absl::StatusOr<Parts> MakeParts(const TokenizerFile& file) {
  Parts parts;
  absl::Status status = Take("model", MakeModel(file.model), parts.model);
  if (status.ok()) {
    status = Take("normalizer", Normalizer::Parse(file.normalizer), parts.normalizer);
  }
  if (status.ok()) {
    status =
        Take("added_tokens",
             AddedTokens::Parse(&file.added_tokens, *parts.model, *parts.normalizer), parts.added);
  }
  if (status.ok()) {
    status = Take("pre_tokenizer", PreTokenizer::Parse(file.pre_tokenizer), parts.pre_tokenizer);
  }
  if (status.ok()) {
    const auto is_token = [&](uint32_t id) {
      return parts.model->TokenOf(id) != nullptr || parts.added->TextOf(id) != nullptr;
    };
    status = Take("post_processor", PostProcessor::Parse(file.post_processor, is_token),
                  parts.post_processor);
  }
  if (status.ok()) {
    status = Take("decoder", Decoder::Parse(file.decoder), parts.decoder);
  }
  if (!status.ok()) {
    return status;
  }
  return parts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizer(absl::string_view file_name,
                                                          absl::string_view json) {
  if (json.size() > kTokenizerFileBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(
        file_name, ": expected at most ", kTokenizerFileBytesMax, " bytes, found ", json.size()));
  }
  const auto file = ReadMembers(json);
  if (!file.ok()) {
    return Within(file_name, file.status());
  }
  auto parts = MakeParts(*file);
  if (!parts.ok()) {
    return Within(file_name, parts.status());
  }
  return std::unique_ptr<Tokenizer>(
      new Tokenizer(*std::move(parts->model), *std::move(parts->added),
                    *std::move(parts->normalizer), *std::move(parts->pre_tokenizer),
                    *std::move(parts->post_processor), *std::move(parts->decoder)));
}

}  // namespace nibble
