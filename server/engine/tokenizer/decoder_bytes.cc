// Decoders of tokens that stand for bytes.

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "server/engine/tokenizer/byte_level.h"
#include "server/engine/tokenizer/decoder_steps.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

constexpr size_t kByteTokenBytes = 6;  // <0x41>

// -1: no hexadecimal digit.
int HexDigit(char c) {
  if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) {
    return -1;
  }
  return absl::ascii_isdigit(static_cast<unsigned char>(c)) ? c - '0' : (c | 0x20) - 'a' + 10;
}

// All tokens become one: the bytes of all, as UTF-8.
class ByteLevelStage : public DecoderStage {
 public:
  void Append(absl::string_view piece) override { token_.append(piece.data(), piece.size()); }

  void EndToken() override {
    AppendByteLevelBytes(token_, bytes_);
    token_.clear();
    Flush(/*last=*/false);
  }

  void EndStream() override {
    Flush(/*last=*/true);
    next().EndToken();
    next().EndStream();
  }

 private:
  void Flush(bool last) {
    std::string text;
    AppendLossy(bytes_, last, text);
    if (!text.empty()) {
      next().Append(text);
    }
  }

  std::string token_;
  std::string bytes_;  // Not yet whole characters.
};

// A run of byte tokens becomes one token if it is UTF-8 as a whole; if it is not, each of its
// tokens becomes U+FFFD. So nothing of a run can be passed on before it ends or is known to be
// invalid.
class ByteFallbackStage : public DecoderStage {
 public:
  void Append(absl::string_view piece) override {
    if (passing_) {
      next().Append(piece);
      return;
    }
    token_.append(piece.data(), piece.size());
    if (token_.size() > kByteTokenBytes) {
      BeginText();
    }
  }

  void EndToken() override {
    const int byte = passing_ ? -1 : ByteOfToken(token_);
    if (byte >= 0) {
      token_.clear();
      run_ += static_cast<char>(byte);
      ++run_tokens_;
      DecodeRun(/*last=*/false);
      return;
    }
    if (!passing_) {
      BeginText();
    }
    passing_ = false;
    next().EndToken();
  }

  void EndStream() override {
    EndRun();
    next().EndStream();
  }

 private:
  // The current token is no byte token.
  void BeginText() {
    EndRun();
    next().Append(token_);
    token_.clear();
    passing_ = true;
  }

  void DecodeRun(bool last) {
    valid_ &= AppendLossy(run_, last, text_);
    for (; !valid_ && run_tokens_ > 0; --run_tokens_) {
      next().Append(kReplacementCharacter);
      next().EndToken();
    }
  }

  void EndRun() {
    DecodeRun(/*last=*/true);
    if (run_tokens_ > 0) {
      next().Append(text_);
      next().EndToken();
    }
    text_.clear();
    run_tokens_ = 0;
    valid_ = true;
  }

  std::string token_;       // Of a token that may be a byte token.
  bool passing_ = false;    // The current token is none, and its beginning was passed on.
  std::string run_;         // Bytes that are no whole character yet.
  std::string text_;        // Of the run so far.
  int64_t run_tokens_ = 0;  // Not yet passed on.
  bool valid_ = true;       // The run so far is UTF-8, or the beginning of it.
};

class ByteLevelDecoder : public DecoderStep {
 public:
  std::unique_ptr<DecoderStage> MakeStage() const override {
    return std::make_unique<ByteLevelStage>();
  }
  std::string BytesOf(std::string token) const override {
    // Bytes of an earlier step: the alphabet is one of characters.
    if (FirstInvalidByte(token) < token.size()) {
      return token;
    }
    std::string bytes;
    AppendByteLevelBytes(token, bytes);
    return bytes;
  }
};

class ByteFallbackDecoder : public DecoderStep {
 public:
  std::unique_ptr<DecoderStage> MakeStage() const override {
    return std::make_unique<ByteFallbackStage>();
  }
  std::string BytesOf(std::string token) const override {
    const int byte = ByteOfToken(token);
    return byte < 0 ? std::move(token) : std::string(1, static_cast<char>(byte));
  }
};

}  // namespace

int ByteOfToken(absl::string_view token) {
  if (token.size() != kByteTokenBytes || !absl::StartsWith(token, "<0x") || token.back() != '>') {
    return -1;
  }
  const int high = token[3] == '+' ? 0 : HexDigit(token[3]);  // The library reads "+A" as a number.
  const int low = HexDigit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

DecoderPointer MakeByteLevelDecoder() { return std::make_unique<ByteLevelDecoder>(); }
DecoderPointer MakeByteFallbackDecoder() { return std::make_unique<ByteFallbackDecoder>(); }

}  // namespace nibble
