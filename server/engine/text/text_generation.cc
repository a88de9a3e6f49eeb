#include "server/engine/text/text_generation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "kernels/mutex.h"

namespace nibble {

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
    if (tokenizer.ok()) {
      answer.detokenizer = std::make_unique<Detokenizer>(**tokenizer, true);
      if (request.echo && !request.prompt.empty()) {
        answer.echoed = answer.detokenizer->Append(static_cast<uint32_t>(request.prompt.front()));
      }
    }
    generation->answers_.push_back(std::move(answer));
  }
  return generation;
}

std::optional<TextEvent> TextGeneration::NextOf(Answer& answer) {
  if (answer.told_end) {
    return std::nullopt;
  }
  TextEvent event;
  event.text = std::exchange(answer.echoed, "");
  while (std::optional<GeneratedToken> token = answer.generation->Next()) {
    if (answer.stopped) {
      continue;
    }
    std::string text = answer.detokenizer == nullptr
                           ? ""
                           : answer.detokenizer->Append(static_cast<uint32_t>(token->id));
    // A stop string in the prompt does not end the answer.
    event.text += token->of_prompt ? text : answer.stops->Append(text);
    answer.told_tokens += token->of_prompt ? 0 : 1;
    event.tokens.push_back(*std::move(token));
    if (answer.stops->found()) {
      answer.stopped = true;
      answer.generation->Cancel();
    }
  }
  std::optional<GenerationEnd> end = answer.generation->end();
  if (end.has_value()) {
    answer.told_end = true;
    if (!answer.stopped && answer.detokenizer != nullptr) {
      event.text += answer.stops->Append(answer.detokenizer->Finish());
      event.text += answer.stops->Finish();
    }
    if (answer.stopped || answer.stops->found()) {
      end->status = absl::OkStatus();
      end->reason = FinishReason::kStop;
      end->generated_tokens = answer.told_tokens;
    }
    event.end = *std::move(end);
    return event;
  }
  return event.text.empty() && event.tokens.empty() ? std::nullopt : std::optional(event);
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
