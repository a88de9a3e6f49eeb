// Answers to one prompt, as text: what the engine's tokens say, up to a stop string.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/engine/engine.h"
#include "server/engine/generation.h"
#include "server/engine/text/answer_parser.h"
#include "server/engine/text/model_text.h"
#include "server/engine/text/stop_strings.h"

namespace nibble {

inline constexpr int64_t kAnswersMax = 16;

struct TextRequest {
  std::vector<int32_t> prompt;
  int64_t tokens_max = 0;  // 0: to the end of the context.
  SamplingOptions sampling;
  int64_t answers = 1;  // n; answer i is drawn with seed + i.
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;  // The model's included, unless they are to be ignored.
  bool echo = false;  // The prompt's tokens come first, with their log-probabilities.
  std::optional<AnswerFormat> format;  // Takes answers apart; what is echoed is content.
  std::function<absl::StatusOr<std::unique_ptr<TokenConstraint>>()> make_constraint;  // Or null.
  absl::Time deadline = absl::InfiniteFuture();
};

// Of one answer: a piece of it, or its end.
struct TextEvent {
  int64_t index = 0;
  std::string text;                    // Whole characters. With a format: its content.
  std::string reasoning;               // With a format; comes before text and calls.
  std::vector<ToolCall> calls;         // With a format; whole ones.
  std::vector<GeneratedToken> tokens;  // Their text may come with a later event.
  bool has_called = false;             // With a format: there was a call, in this event or before.
  std::optional<GenerationEnd> end;    // The last event of an answer has it.

  // How the answer ended, in OpenAI's words: "stop", "length", or "tool_calls" for a stop after
  // calls. Empty before its end.
  absl::string_view finish_reason() const;
};

// Takes tokens from the engine when its client asks for them, so a slow client slows its own answer
// alone. Belongs to one client; Next() and Cancel() may be called by any thread, one at a time.
class TextGeneration {
 public:
  // `notify` is called by the engine's thread, without locks, when Next() may have something; it
  // must return at once. `text` may have no tokenizer: then there are ids and no text.
  //
  // Errors: those of Engine::Submit; INVALID_ARGUMENT for n or stop; FAILED_PRECONDITION for stop
  //   strings without a tokenizer.
  static absl::StatusOr<std::unique_ptr<TextGeneration>> Start(
      Engine& engine, std::shared_ptr<const ModelText> text, TextRequest request,
      std::function<void()> notify);

  // Cancels what is not done.
  ~TextGeneration();

  // The next event that is there, of any answer; nothing if none is, or all have ended.
  std::optional<TextEvent> Next();

  // Whether every answer has ended and been told.
  bool done() const;

  void Cancel();

  // Waits until Next() has something or all is done; for callers with a thread to wait with.
  void Wait();

 private:
  struct Answer {
    std::shared_ptr<Generation> generation;
    std::unique_ptr<Detokenizer> detokenizer;  // Null without a tokenizer.
    std::unique_ptr<StopStrings> stops;
    std::unique_ptr<AnswerParser> parser;  // Null without a format.
    std::string echoed;                    // Text of the prompt's first token, which is not scored.
    // By a stop string or its one call: what the engine still says is not told.
    bool stopped = false;
    bool has_called = false;
    bool told_end = false;
    int64_t told_tokens = 0;
  };
  class Signal;

  TextGeneration(std::shared_ptr<const ModelText> text, std::shared_ptr<Signal> signal);
  std::optional<TextEvent> NextOf(Answer& answer);
  static void TakeToken(Answer& answer, GeneratedToken token, TextEvent& event);
  static void TakeEnd(Answer& answer, GenerationEnd end, TextEvent& event);

  const std::shared_ptr<const ModelText> text_;
  const std::shared_ptr<Signal> signal_;
  std::vector<Answer> answers_;
  size_t next_answer_ = 0;  // Answers take turns.
};

}  // namespace nibble
