#include "server/engine/text/text_generation.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "kernels/mutex.h"

namespace nibble {
namespace {

void AddPiece(AnswerPiece piece, TextEvent& event) {
  event.reasoning += piece.reasoning;
  event.text += piece.content;
  std::move(piece.calls.begin(), piece.calls.end(), std::back_inserter(event.calls));
}

// `parser` may be null.
void AddText(AnswerParser* parser, const std::string& text, TextEvent& event) {
  if (parser == nullptr) {
    event.text += text;
  } else {
    AddPiece(parser->Append(text), event);
  }
}

// Special tokens that a parser of `format` must see.
std::vector<uint32_t> SpecialMarkers(const Tokenizer& tokenizer, const AnswerFormat& format) {
  std::vector<uint32_t> ids;
  for (const absl::string_view marker : MarkersOf(format)) {
    if (const std::optional<uint32_t> id = tokenizer.IdOf(marker)) {
      ids.push_back(*id);
    }
  }
  return ids;
}

}  // namespace

absl::string_view TextEvent::finish_reason() const {
  if (!end.has_value()) {
    return "";
  }
  if (end->reason != FinishReason::kStop) {
    return "length";
  }
  return has_called ? "tool_calls" : "stop";
}

// Counts what the engine has told, so that a thread can wait for the next.
class TextGeneration::Signal {
 public:
  explicit Signal(std::function<void()> notify) : notify_(std::move(notify)) {}

  void Notify() {
    {
      MutexLock lock(mutex_);
      ++count_;
      changed_.SignalAll();
    }
    if (notify_ != nullptr) {
      notify_();
    }
  }

  uint64_t count() {
    MutexLock lock(mutex_);
    return count_;
  }

  void WaitBeyond(uint64_t seen) {
    MutexLock lock(mutex_);
    while (count_ == seen) {
      changed_.Wait(mutex_);
    }
  }

  // What was told before the last look; belongs to the client.
  uint64_t seen = 0;

 private:
  const std::function<void()> notify_;
  Mutex mutex_;
  CondVar changed_;
  uint64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

TextGeneration::TextGeneration(std::shared_ptr<const ModelText> text,
                               std::shared_ptr<Signal> signal)
    : text_(std::move(text)), signal_(std::move(signal)) {}

TextGeneration::~TextGeneration() { Cancel(); }

absl::StatusOr<std::unique_ptr<TextGeneration>> TextGeneration::Start(
    Engine& engine, std::shared_ptr<const ModelText> text, TextRequest request,
    std::function<void()> notify) {
  if (request.answers < 1 || request.answers > kAnswersMax) {
    return BadField("n", absl::StrCat("expected 1 to ", kAnswersMax, ", found ", request.answers));
  }
  absl::Status status = CheckStopStrings(request.stop);
  const absl::StatusOr<const Tokenizer*> tokenizer = text->tokenizer();
  if (status.ok() && !request.stop.empty()) {
    status = tokenizer.status();
  }
  if (!status.ok()) {
    return status;
  }
  auto generation = std::unique_ptr<TextGeneration>(
      new TextGeneration(std::move(text), std::make_shared<Signal>(std::move(notify))));
  for (int64_t index = 0; index < request.answers; ++index) {
    GenerationRequest one;
    one.prompt = request.prompt;
    one.tokens_max = request.tokens_max > 0 ? request.tokens_max : engine.limits().context_tokens;
    one.sampling = request.sampling;
    one.sampling.seed += static_cast<uint64_t>(index);
    one.stop_token_ids = request.stop_token_ids;
    one.score_prompt = request.echo;
    one.deadline = request.deadline;
    if (request.make_constraint != nullptr) {
      absl::StatusOr<std::unique_ptr<TokenConstraint>> constraint = request.make_constraint();
      if (!constraint.ok()) {
        return constraint.status();
      }
      one.constraint = *std::move(constraint);
    }
    absl::StatusOr<std::shared_ptr<Generation>> submitted =
        engine.Submit(std::move(one), [signal = generation->signal_] { signal->Notify(); });
    if (!submitted.ok()) {
      return submitted.status();  // Those before are cancelled with their owner.
    }
    Answer answer;
    answer.generation = *std::move(submitted);
    answer.stops = std::make_unique<StopStrings>(request.stop);
    if (request.format.has_value() && !request.format->is_plain()) {
      answer.parser = std::make_unique<AnswerParser>(*request.format);
    }
    if (tokenizer.ok()) {
      answer.detokenizer = std::make_unique<Detokenizer>(
          **tokenizer, true,
          request.format.has_value() ? SpecialMarkers(**tokenizer, *request.format)
                                     : std::vector<uint32_t>());
      if (request.echo && !request.prompt.empty()) {
        answer.echoed = answer.detokenizer->Append(static_cast<uint32_t>(request.prompt.front()));
      }
    }
    generation->answers_.push_back(std::move(answer));
  }
  return generation;
}

void TextGeneration::TakeToken(Answer& answer, GeneratedToken token, TextEvent& event) {
  const std::string text = answer.detokenizer == nullptr
                               ? ""
                               : answer.detokenizer->Append(static_cast<uint32_t>(token.id));
  if (token.of_prompt) {
    event.text += text;  // A stop string in the prompt does not end the answer.
  } else {
    AddText(answer.parser.get(), answer.stops->Append(text), event);
    ++answer.told_tokens;
  }
  event.tokens.push_back(std::move(token));
  if (answer.stops->found() || (answer.parser != nullptr && answer.parser->done())) {
    answer.stopped = true;
    answer.generation->Cancel();
  }
}

void TextGeneration::TakeEnd(Answer& answer, GenerationEnd end, TextEvent& event) {
  answer.told_end = true;
  if (!answer.stopped && answer.detokenizer != nullptr) {
    AddText(answer.parser.get(), answer.stops->Append(answer.detokenizer->Finish()), event);
    AddText(answer.parser.get(), answer.stops->Finish(), event);
  }
  if (answer.parser != nullptr) {
    AddPiece(answer.parser->Finish(), event);
  }
  if (answer.stopped || answer.stops->found()) {
    end.status = absl::OkStatus();
    end.reason = FinishReason::kStop;
    end.generated_tokens = answer.told_tokens;
  }
  event.end = std::move(end);
}

std::optional<TextEvent> TextGeneration::NextOf(Answer& answer) {
  if (answer.told_end) {
    return std::nullopt;
  }
  TextEvent event;
  event.text = std::exchange(answer.echoed, "");
  while (std::optional<GeneratedToken> token = answer.generation->Next()) {
    if (!answer.stopped) {
      TakeToken(answer, *std::move(token), event);
    }
  }
  if (std::optional<GenerationEnd> end = answer.generation->end()) {
    TakeEnd(answer, *std::move(end), event);
  }
  answer.has_called = answer.has_called || !event.calls.empty();
  event.has_called = answer.has_called;
  if (event.end.has_value()) {
    return event;
  }
  const bool is_empty =
      event.text.empty() && event.reasoning.empty() && event.calls.empty() && event.tokens.empty();
  return is_empty ? std::nullopt : std::optional(std::move(event));
}

std::optional<TextEvent> TextGeneration::Next() {
  signal_->seen = signal_->count();
  for (size_t turn = 0; turn < answers_.size(); ++turn) {
    const size_t index = next_answer_;
    next_answer_ = (next_answer_ + 1) % answers_.size();
    if (std::optional<TextEvent> event = NextOf(answers_[index])) {
      event->index = static_cast<int64_t>(index);
      return event;
    }
  }
  return std::nullopt;
}

bool TextGeneration::done() const {
  return std::all_of(answers_.begin(), answers_.end(),
                     [](const Answer& answer) { return answer.told_end; });
}

void TextGeneration::Cancel() {
  for (const Answer& answer : answers_) {
    answer.generation->Cancel();
  }
}

void TextGeneration::Wait() {
  if (!done()) {
    signal_->WaitBeyond(signal_->seen);
  }
}

}  // namespace nibble
