// Decoders: how tokenizer.json turns tokens back into text. They work on a stream, so that text can
// be delivered while tokens are still being made.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/json_tree.h"

namespace nibble {

// Takes tokens piece by piece. Each piece is valid UTF-8 and whole characters.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void Append(absl::string_view piece) = 0;  // More of the current token.
  virtual void EndToken() = 0;
  virtual void EndStream() = 0;
};

// One decoder of a stream: a sink that passes on to another what can no longer change.
class DecoderStage : public TokenSink {
 public:
  void set_next(TokenSink* next) { next_ = next; }

 protected:
  TokenSink& next() { return *next_; }

 private:
  TokenSink* next_ = nullptr;
};

// One decoder of a file. Immutable and thread-safe; its stages are not.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  virtual std::unique_ptr<DecoderStage> MakeStage() const = 0;

  // The bytes that a token with the text or bytes `token` adds, wherever it stands: without what
  // the step does at the beginning or the end of a text.
  virtual std::string BytesOf(std::string token) const { return token; }
};

// The state of one text that is being decoded. One thread at a time; must not outlive its Decoder.
class DecoderStream {
 public:
  DecoderStream(DecoderStream&&) noexcept;
  DecoderStream& operator=(DecoderStream&&) noexcept;
  ~DecoderStream();

  void Append(absl::string_view token);
  // No more tokens follow.
  void Finish();
  // Takes the text that is final and was not taken yet: whole characters.
  std::string TakeText();

 private:
  friend class Decoder;
  class Output;
  explicit DecoderStream(std::vector<std::unique_ptr<DecoderStage>> stages);
  TokenSink& first();

  std::vector<std::unique_ptr<DecoderStage>> stages_;
  std::unique_ptr<Output> output_;
};

// The decoders of a file, applied in order. Immutable and thread-safe.
class Decoder {
 public:
  // ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence; none: a space between
  // tokens.
  //
  // Errors: UNIMPLEMENTED for others, naming them; DATA_LOSS for members that are missing or wrong.
  static absl::StatusOr<Decoder> Parse(const JsonTree& tree);

  DecoderStream NewStream() const;
  std::string BytesOf(std::string token) const;

 private:
  std::vector<std::unique_ptr<const DecoderStep>> steps_;
};

}  // namespace nibble
