#include "server/openai_exchange.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "kernels/error_details.h"
#include "server/host_memory.h"
#include "server/openai_errors.h"
#include "server/openai_models.h"
#include "server/openai_request.h"
#include "server/request_json.h"

namespace nibble {
namespace {

// Of one part of a stream: what is there beyond it waits for the next.
constexpr size_t kPartBytes = 32 << 10;

// Limits that a prompt, or the template that makes one, has run into stay where they are, and
// OpenAI's clients try a 429 again by themselves.
absl::Status OfRequest(const absl::Status& status) {
  return absl::IsResourceExhausted(status)
             ? WithDetails(absl::InvalidArgumentError(status.message()), DetailsOf(status))
             : status;
}

// What the engine refuses of a prompt, under the name that the request has for it.
absl::Status OfPrompt(const absl::Status& status, const char* request_field) {
  const std::string field = DetailsOf(status).field;
  absl::string_view message = status.message();
  return (field == "prompt" || field == "token_ids") &&
                 absl::ConsumePrefix(&message, absl::StrCat(field, ": "))
             ? BadField(request_field, message)
             : status;
}

std::string DrawId() {
  std::random_device device;
  const uint64_t id = uint64_t{device()} << 32 | uint64_t{device()};
  return absl::StrCat(absl::Hex(id, absl::kZeroPad16));
}

}  // namespace

OpenAiExchange::OpenAiExchange(ModelRegistry& registry, Logger& logger, bool is_chat,
                               std::string body, std::function<void()> wake)
    : registry_(registry),
      logger_(logger),
      is_chat_(is_chat),
      wake_(std::move(wake)),
      body_(std::move(body)) {}

void OpenAiExchange::Prepare() {
  Set(WithinHostMemory("the request", [this] { return Begin(); }));
}

void OpenAiExchange::Fail(absl::Status status) { Set(std::move(status)); }

void OpenAiExchange::Set(absl::StatusOr<Run> run) {
  {
    MutexLock lock(mutex_);
    run_.emplace(std::move(run));
  }
  wake_();
}

absl::StatusOr<OpenAiExchange::Run> OpenAiExchange::Begin() {
  const absl::StatusOr<TemplateJson> json = ParseRequestJson(body_);
  if (!json.ok()) {
    return json.status();
  }
  absl::StatusOr<std::string> model = ReadModelName(*json);
  if (!model.ok()) {
    return model.status();
  }
  model_ = *std::move(model);
  absl::StatusOr<ModelHandle> handle = registry_.Acquire(model_);
  if (absl::IsNotFound(handle.status())) {
    return OpenAiModelNotFound(handle.status().message());
  }
  if (!handle.ok()) {
    return handle.status();
  }
  const absl::StatusOr<Engine*> engine = handle->engine();
  if (!engine.ok()) {
    return engine.status();
  }
  const std::shared_ptr<const ModelText> text = handle->text();
  absl::StatusOr<OpenAiRequest> request =
      is_chat_ ? ParseChatCompletion(*json, *text, (*engine)->recipe().vocabulary_size)
               : ParseCompletion(*json, *text);
  if (!request.ok()) {
    return OfRequest(request.status());
  }
  body_ = std::string();  // Its memory is not needed while the answer is made.
  Run run = {*std::move(handle),
             request->stream,
             OpenAiAnswers(*request, text, DrawId(), absl::Now()),
             {}};
  for (TextRequest& one : request->texts) {
    absl::StatusOr<std::unique_ptr<TextGeneration>> generation =
        TextGeneration::Start(**engine, text, std::move(one), wake_);
    if (!generation.ok()) {
      return OfPrompt(generation.status(), is_chat_ ? "messages" : "prompt");
    }
    run.generations.push_back(*std::move(generation));
  }
  return run;
}

std::optional<HttpPart> OpenAiExchange::Next() {
  absl::StatusOr<Run>* prepared = nullptr;
  {
    MutexLock lock(mutex_);
    if (!run_.has_value()) {
      return std::nullopt;
    }
    prepared = &*run_;  // Nobody else touches it any more.
  }
  if (!prepared->ok()) {
    return Refuse(prepared->status());
  }
  Run& run = **prepared;
  HttpPart part;
  part.last = TakeEvents(run, part.answer.body);
  if (!failed_.ok()) {
    HttpPart refusal = Refuse(failed_);
    refusal.answer.body.insert(0, begun_ ? part.answer.body : "");
    return refusal;
  }
  if (part.last) {
    part.answer.body += run.answers.Finish();
  }
  if (part.answer.body.empty()) {
    return std::nullopt;
  }
  part.answer.content_type = run.stream ? "text/event-stream; charset=utf-8" : "application/json";
  begun_ = true;
  return part;
}

// Appends to `text` what a stream sends. Returns: whether all is told.
bool OpenAiExchange::TakeEvents(Run& run, std::string& text) {
  bool done = true;
  for (size_t index = 0; index < run.generations.size(); ++index) {
    TextGeneration& generation = *run.generations[index];
    while (text.size() < kPartBytes) {
      const std::optional<TextEvent> event = generation.Next();
      if (!event.has_value()) {
        break;
      }
      if (event->end.has_value() && !event->end->status.ok()) {
        failed_ = event->end->status;
        return true;
      }
      text += run.answers.Add(index, *event);
    }
    done = done && generation.done();
  }
  return done;
}

HttpPart OpenAiExchange::Refuse(const absl::Status& status) {
  LogRequest(logger_, is_chat_ ? "ChatCompletions" : "Completions", model_, "", status);
  if (!begun_) {
    return {.answer = OpenAiError(status), .last = true};
  }
  // The status line is sent: the stream says it, and ends without [DONE].
  HttpPart part;
  part.answer.body = ServerSentEvent(OpenAiErrorJson(status));
  return part;
}

}  // namespace nibble
