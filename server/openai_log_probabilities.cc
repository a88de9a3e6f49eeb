#include "server/openai_log_probabilities.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// JSON has no infinity; OpenAI writes this for what is next to impossible.
constexpr float kLogProbabilityLeast = -9999;

float Finite(float log_probability) {
  return log_probability >= kLogProbabilityLeast ? log_probability : kLogProbabilityLeast;
}

// What the token adds to a text, perhaps half a character; without a tokenizer something that names
// it.
std::string BytesOf(const ModelText& text, int32_t id) {
  const absl::StatusOr<const Tokenizer*> tokenizer = text.tokenizer();
  return tokenizer.ok() ? (*tokenizer)->TokenBytes(static_cast<uint32_t>(id)).value_or("")
                        : absl::StrCat("token_id:", id);
}

TemplateJson TokenJson(const ModelText& text, int32_t id, float log_probability) {
  const std::string bytes = BytesOf(text, id);
  TemplateJson json = TemplateJson::object();
  json["token"] = bytes;  // What is not UTF-8 is replaced when it is written.
  json["logprob"] = Finite(log_probability);
  TemplateJson values = TemplateJson::array();
  for (const char byte : bytes) {
    values.push_back(static_cast<unsigned char>(byte));
  }
  json["bytes"] = std::move(values);
  return json;
}

// Whether it shows in the text.
bool IsShown(const ModelText& text, int32_t id) {
  const absl::StatusOr<const Tokenizer*> tokenizer = text.tokenizer();
  return tokenizer.ok() && !(*tokenizer)->IsSpecial(static_cast<uint32_t>(id));
}

// Characters that begin in `bytes`.
int64_t CountCharacters(const std::string& bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; });
}

}  // namespace

void OpenAiLogProbabilities::AddFirst(int32_t id) { AddToCompletion(id, nullptr, nullptr); }

void OpenAiLogProbabilities::Add(const GeneratedToken& token) {
  if (is_chat_) {
    TemplateJson json = TokenJson(text_, token.id, token.log_probability);
    json["top_logprobs"] = TemplateJson::array();
    for (const auto& [id, log_probability] : token.top) {
      json["top_logprobs"].push_back(TokenJson(text_, id, log_probability));
    }
    content_.push_back(std::move(json));
    ++count_;
    return;
  }
  TemplateJson top = TemplateJson::object();
  for (const auto& [id, log_probability] : token.top) {
    // Of tokens that look alike, the most likely, which comes first.
    top.emplace(BytesOf(text_, id), Finite(log_probability));
  }
  AddToCompletion(token.id, Finite(token.log_probability), std::move(top));
}

void OpenAiLogProbabilities::AddToCompletion(int32_t id, TemplateJson log_probability,
                                             TemplateJson top) {
  const std::string bytes = BytesOf(text_, id);
  tokens_.push_back(bytes);
  token_log_probabilities_.push_back(std::move(log_probability));
  top_.push_back(std::move(top));
  offsets_.push_back(characters_);
  characters_ += IsShown(text_, id) ? CountCharacters(bytes) : 0;
  ++count_;
}

TemplateJson OpenAiLogProbabilities::Take() {
  TemplateJson json = TemplateJson::object();
  const auto move_to = [&json](const char* name, TemplateJson& values) {
    json[name] = std::exchange(values, TemplateJson::array());
  };
  count_ = 0;
  if (is_chat_) {
    move_to("content", content_);
    json["refusal"] = nullptr;
    return json;
  }
  move_to("tokens", tokens_);
  move_to("token_logprobs", token_log_probabilities_);
  move_to("top_logprobs", top_);
  move_to("text_offset", offsets_);
  return json;
}

}  // namespace nibble
