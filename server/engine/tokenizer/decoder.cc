#include "server/engine/tokenizer/decoder.h"

#include <utility>

#include "server/engine/tokenizer/component_file.h"
#include "server/engine/tokenizer/decoder_steps.h"

namespace nibble {
namespace {

absl::StatusOr<DecoderPointer> ParseStep(absl::string_view type, const JsonTree& component) {
  if (type == "ByteLevel") {
    return MakeByteLevelDecoder();
  }
  if (type == "ByteFallback") {
    return MakeByteFallbackDecoder();
  }
  if (type == "Fuse") {
    return MakeFuseDecoder();
  }
  if (type == "Metaspace") {
    return ParseMetaspaceDecoder(component);
  }
  if (type == "Replace") {
    return ParseReplaceDecoder(component);
  }
  if (type == "Strip") {
    return ParseStripDecoder(component);
  }
  return UnknownComponent();
}

}  // namespace

// Joins what comes out of the last stage.
class DecoderStream::Output : public TokenSink {
 public:
  void Append(absl::string_view piece) override { text_.append(piece.data(), piece.size()); }
  void EndToken() override {}
  void EndStream() override {}
  std::string TakeText() { return std::exchange(text_, {}); }

 private:
  std::string text_;
};

DecoderStream::DecoderStream(std::vector<std::unique_ptr<DecoderStage>> stages)
    : stages_(std::move(stages)), output_(std::make_unique<Output>()) {
  for (size_t i = 0; i < stages_.size(); ++i) {
    TokenSink* const next =
        i + 1 < stages_.size() ? static_cast<TokenSink*>(stages_[i + 1].get()) : output_.get();
    stages_[i]->set_next(next);
  }
}

DecoderStream::DecoderStream(DecoderStream&&) noexcept = default;
DecoderStream& DecoderStream::operator=(DecoderStream&&) noexcept = default;
DecoderStream::~DecoderStream() = default;

TokenSink& DecoderStream::first() {
  return stages_.empty() ? static_cast<TokenSink&>(*output_) : *stages_.front();
}

void DecoderStream::Append(absl::string_view token) {
  first().Append(token);
  first().EndToken();
}

void DecoderStream::Finish() { first().EndStream(); }

std::string DecoderStream::TakeText() { return output_->TakeText(); }

absl::StatusOr<Decoder> Decoder::Parse(const JsonTree& tree) {
  Decoder decoder;
  if (tree.is_null()) {
    decoder.steps_.push_back(MakeSpacingDecoder());
    return decoder;
  }
  absl::Status status =
      ForEachComponent(tree, "decoders", [&](absl::string_view type, const JsonTree& component) {
        auto step = ParseStep(type, component);
        if (!step.ok()) {
          return step.status();
        }
        decoder.steps_.push_back(*std::move(step));
        return absl::OkStatus();
      });
  if (!status.ok()) {
    return status;
  }
  return decoder;
}

DecoderStream Decoder::NewStream() const {
  std::vector<std::unique_ptr<DecoderStage>> stages;
  stages.reserve(steps_.size());
  for (const DecoderPointer& step : steps_) {
    stages.push_back(step->MakeStage());
  }
  return DecoderStream(std::move(stages));
}

std::string Decoder::BytesOf(std::string token) const {
  for (const DecoderPointer& step : steps_) {
    token = step->BytesOf(std::move(token));
  }
  return token;
}

}  // namespace nibble
